"""Faults of laws 1, 2, 3, 10 and 11."""

from __future__ import annotations

import asyncio
import unicodedata
from typing import Any

from stem_core.contracts import BrokerContract
from stem_core.envelope import Ack, Release, Retry
from stem_core.errors import PayloadTooLarge
from stem_core.ports.broker import QueueStats
from tests.faults.harness import broken
from tests.faults.memory import MemoryBroker, Queues, broker


def changed(message: Any, /, **fields: Any) -> Any:
    values = {name: getattr(message, name) for name in type(message).__struct_fields__}
    return type(message)(**{**values, **fields})


# law 1: what was published is delivered until it is settled


@broken(1, BrokerContract)
def popped_before_it_is_kept_in_flight() -> Any:
    """A destructive pop: whoever dies holding it loses it."""

    class Q(Queues):
        def advance(self, queue, now):
            while (key := queue.leased.first()) is not None and key[0] <= now:
                entry = queue.leased.pop()
                self._end_lease(entry)
                del queue.by_id[entry.message.id]
            super().advance(queue, now)

    return broker(queues=Q)


@broken(1, BrokerContract)
def retry_acks_and_then_publishes() -> Any:
    """The publish is refused: the id is known, it was just acked."""

    class Q(Queues):
        def settle(self, receipt, action, now):
            if isinstance(action, Retry):
                return super().settle(receipt, Ack(), now)
            return super().settle(receipt, action, now)

    return broker(queues=Q)


@broken(1, BrokerContract)
def close_acks_what_is_in_hand() -> Any:
    """A tidy shutdown that settles what was never run."""

    class B(MemoryBroker):
        async def receive(self, queues, **kw):
            found = await super().receive(queues, **kw)
            self.__dict__.setdefault("mine", []).extend(found)
            return found

        async def close(self):
            for each in self.__dict__.pop("mine", []):
                self._store.queues.settle(each.receipt, Ack(), self._store.clock.time())
            await super().close()

    return broker(B)


@broken(1, BrokerContract)
def a_refused_batch_is_half_stored() -> Any:
    class B(MemoryBroker):
        async def publish(self, messages):
            done = []
            for message in messages:
                if len(message.sealed) > 1000:
                    raise PayloadTooLarge("too large")
                done += await super().publish([message])
            return done

    return broker(B, max_size=1000)


# law 2: a once id is added once


@broken(2, BrokerContract)
def once_is_forgotten_with_the_message() -> Any:
    """Only rows that are still there make an id known."""

    class Q(Queues):
        def _gone(self, queue, entry, now):
            super()._gone(queue, entry, now)
            self._remembered.clear()

    return broker(queues=Q)


@broken(2, BrokerContract)
def publishing_again_replaces_the_row() -> Any:
    """An upsert by id: the message in flight gets other bytes."""

    class Q(Queues):
        def publish(self, message, now):
            queue = self._queues.get(message.queue)
            if queue and message.id in queue.by_id:
                entry = queue.by_id[message.id]
                entry.message = changed(entry.message, sealed=message.sealed)
                return False
            return super().publish(message, now)

    return broker(queues=Q)


@broken(2, BrokerContract)
def once_is_known_in_every_queue() -> Any:
    class Q(Queues):
        def publish(self, message, now):
            elsewhere = [q for q in self._queues.values() if message.id in q.by_id]
            return False if message.once and elsewhere else super().publish(message, now)

    return broker(queues=Q)


@broken(2, BrokerContract)
def once_ttl_is_an_hour_whatever_is_said() -> Any:
    class Q(Queues):
        def __init__(self, once_ttl):
            super().__init__(3600.0)

    return broker(queues=Q)


@broken(2, BrokerContract)
def a_known_id_answers_true() -> Any:
    """A duplicate is dropped and reported as added."""

    class B(MemoryBroker):
        async def publish(self, messages):
            return [True for _ in await super().publish(messages)]

    return broker(B)


@broken(2, BrokerContract)
def once_is_checked_and_then_added() -> Any:
    """Two steps: both of two publishers find the id unknown."""

    class B(MemoryBroker):
        async def publish(self, messages):
            queues = self._store.queues
            known = [m.queue in queues._queues and m.id in queues._queues[m.queue].by_id for m in messages]
            await asyncio.sleep(0)
            if not any(known):
                await super().publish(messages)
                return [True] * len(messages)
            return await super().publish(messages)

    return broker(B)


@broken(2, BrokerContract)
def purge_forgets_ids() -> Any:
    class Q(Queues):
        def purge(self, name, now):
            before = set(self._remembered)
            count = super().purge(name, now)
            for key in set(self._remembered) - before:
                del self._remembered[key]
            return count

    return broker(queues=Q)


# law 3: bytes


def recoding(law: int, recode: Any, name: str) -> None:
    def make() -> Any:
        class Q(Queues):
            def publish(self, message, now):
                return super().publish(changed(message, sealed=recode(message.sealed)), now)

        return broker(queues=Q)

    make.__name__ = name
    broken(law, BrokerContract)(make)


recoding(3, lambda data: data.decode("utf-8", "replace").encode(), "bytes_travel_as_text")
recoding(3, lambda data: data.rstrip(b"\0"), "padding_is_stripped")
recoding(3, lambda data: data[:65_536], "cut_at_64_kib")
recoding(3, lambda data: data.replace(b"\r\n", b"\n") or b"null", "the_empty_payload_becomes_null")


@broken(3, BrokerContract)
def the_size_limit_is_not_kept() -> Any:
    """One more byte than declared is taken, and cut."""

    class B(MemoryBroker):
        async def publish(self, messages):
            self._check_open()
            limit = self.capabilities.max_size
            cut = [
                changed(m, sealed=m.sealed[: limit - 1]) if len(m.sealed) >= limit else m for m in messages
            ]
            return await super().publish(cut)

    return broker(B, max_size=70_000)


@broken(3, BrokerContract)
def once_is_lost_on_the_way() -> Any:
    class B(MemoryBroker):
        async def receive(self, queues, **kw):
            found = await super().receive(queues, **kw)
            return [changed(d, message=changed(d.message, once=False)) for d in found]

    return broker(B)


# law 10: names


def naming(rename: Any, name: str) -> None:
    """Two queues of one stored name share their messages; each delivery says what was asked for."""

    def make() -> Any:
        class B(MemoryBroker):
            async def publish(self, messages):
                return await super().publish([changed(m, queue=rename(m.queue)) for m in messages])

            async def receive(self, queues, **kw):
                names = {rename(q): q for q in queues}
                found = await super().receive(list(names), **kw)
                return [changed(d, message=changed(d.message, queue=names[d.message.queue])) for d in found]

            async def stats(self, queue):
                return await super().stats(rename(queue))

        return broker(B)

    make.__name__ = name
    broken(10, BrokerContract)(make)


naming(str.lower, "names_ignore_case")
naming(lambda name: unicodedata.normalize("NFC", name), "names_are_normalised")
naming(lambda name: name[:63], "names_are_cut_at_63")
naming(str.strip, "names_are_stripped")
naming(lambda name: name.partition(":")[0], "a_colon_ends_the_name")


@broken(10, BrokerContract)
def namespaces_are_a_prefix() -> Any:
    """``a`` + ``xq`` and ``ax`` + ``q`` are one key; worse, everything of a longer namespace is seen."""

    class B(MemoryBroker):
        def __init__(self, url, options, capabilities):
            namespace = options.namespace
            cut = changed_options(options, namespace[:17])
            super().__init__(url, cut, capabilities)
            self.namespace = namespace

    return broker(B)


def changed_options(options: Any, namespace: str) -> Any:
    from dataclasses import replace

    return replace(options, namespace=namespace)


# law 11: counts


@broken(11, BrokerContract)
def purge_takes_leased_ones() -> Any:
    class Q(Queues):
        def purge(self, name, now):
            queue = self._queues.get(name)
            for entry in list(queue.leased if queue else ()):
                self.settle(entry.receipt, Release(), now)
            return super().purge(name, now)

    return broker(queues=Q)


@broken(11, BrokerContract)
def purge_leaves_scheduled_ones() -> Any:
    class Q(Queues):
        def purge(self, name, now):
            queue = self._queues.get(name)
            kept = list(queue.scheduled) if queue else []
            for entry in kept:
                queue.scheduled.remove(entry.due)
            count = super().purge(name, now)
            for entry in kept:
                queue.scheduled.add(entry.due, entry)
            return count

    return broker(queues=Q)


def counting(change: Any, name: str) -> None:
    def make() -> Any:
        class Q(Queues):
            settled = 0

            def settle(self, receipt, action, now):
                done = super().settle(receipt, action, now)
                self.settled += done is not None and isinstance(action, Ack)
                return done

            def stats(self, name, now):
                real = super().stats(name, now)
                return QueueStats(
                    **{**{f: getattr(real, f) for f in QueueStats.__struct_fields__}, **change(self, real)}
                )

        return broker(queues=Q)

    make.__name__ = name
    broken(11, BrokerContract)(make)


counting(lambda q, s: {"ready": s.ready + q.settled}, "acked_entries_stay_in_the_stream")
counting(lambda q, s: {"ready": s.ready + s.leased, "leased": 0}, "leased_ones_count_as_ready")
counting(lambda q, s: {"ready": 0 if q.settled else s.ready}, "an_unknown_lag_reads_as_zero")
counting(lambda q, s: {"oldest_ready_age": 0.0 if s.ready else None}, "the_oldest_is_always_new")
