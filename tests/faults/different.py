"""Adapters that are correct and unlike ours: what the suite must not punish."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable
from typing import Any

from stem_core.builtin.memory.groups import Group
from stem_core.contracts import BackendContract, BrokerContract, CommitterContract
from stem_core.errors import UnsupportedCapability
from stem_core.ports.backend import GroupAnswer, LimitAnswer
from stem_core.ports.capabilities import BackendCapabilities, BrokerCapabilities
from stem_core.status import StatusPage
from tests.faults.harness import Contract
from tests.faults.memory import (
    MemoryBackend,
    MemoryBroker,
    Queues,
    Records,
    backend,
    broker,
    committer,
    grouped,
)
from tests.faults.offers import Transactional, transactional
from tests.faults.publishing import changed
from tests.faults.starts import Starting

DIFFERENT: list[tuple[str, type[Contract]]] = []


def correct(contract: type[Contract]) -> Callable[[Any], Any]:
    def register(make: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
        DIFFERENT.append(
            (make.__name__.replace("_", "-"), type(f"Test_{make.__name__}", (contract,), make()))
        )
        return make

    return register


@correct(BrokerContract)
def partial_batches() -> Any:
    """Fewer than there are, never none."""

    class B(MemoryBroker):
        async def receive(self, queues, *, limit, lease, wait):
            return await super().receive(queues, limit=random.randint(1, limit), lease=lease, wait=wait)

    return broker(B)


@correct(BrokerContract)
def random_ties() -> Any:
    """Of equal messages any may come first."""

    class Q(Queues):
        def publish(self, message, now):
            added = super().publish(message, now)
            entry = self._queues[message.queue].by_id[message.id] if added else None
            if entry is not None and entry.due is None:
                level = self._queues[message.queue].levels[message.priority]
                level.remove(entry.order)
                entry.order += random.randrange(10**6) * 10**9
                level.add(entry.order, entry)
            return added

        def stats(self, name, now):
            stats = super().stats(name, now)
            since = (
                [entry.ready_since for level in self._queues[name].levels for entry in level]
                if stats.ready
                else []
            )
            return changed(stats, oldest_ready_age=now - min(since) if since else None)

    return broker(queues=Q, fifo=False)


@correct(BrokerContract)
def shuffled_answers() -> Any:
    """Nothing is promised of the order, so an answer has none."""

    class B(MemoryBroker):
        async def receive(self, queues, **kw):
            found = list(await super().receive(queues, **kw))
            random.shuffle(found)
            return found

    return broker(B, fifo=False, priority_levels=1, global_priority=False)


@correct(BrokerContract)
def a_coarse_clock() -> Any:
    """Half a second: whatever is due or ends, does so at the next tick."""

    def later(seconds: float, now: float) -> float:
        return math.ceil((now + seconds) * 2) / 2 - now if seconds > 0 else 0.0

    class Q(Queues):
        def publish(self, message, now):
            due = message.delay
            if message.not_before is not None:
                due = max(due, message.not_before.timestamp() - now)
            return super().publish(changed(message, delay=later(due, now), not_before=None), now)

        def _lease(self, queue, entry, until, until_instant):
            return super()._lease(queue, entry, math.ceil(until * 2) / 2, until_instant)

        def extend(self, receipt, lease, now):
            return super().extend(receipt, later(lease, now), now)

        def settle(self, receipt, action, now):
            if hasattr(action, "delay"):
                action = changed(action, delay=later(action.delay, now))
            return super().settle(receipt, action, now)

    return broker(queues=Q, resolution=0.5)


@correct(BrokerContract)
def an_ended_lease_is_lost_at_once() -> Any:
    """The other answer of law 5: late settles answer False."""

    class Q(Queues):
        def settle(self, receipt, action, now):
            for queue in self._queues.values():
                self.advance(queue, now)
            return super().settle(receipt, action, now)

        def extend(self, receipt, lease, now):
            for queue in self._queues.values():
                self.advance(queue, now)
            return super().extend(receipt, lease, now)

    return broker(queues=Q)


@correct(BrokerContract)
def ended_leases_count_as_leased() -> Any:
    """Until somebody receives."""

    class Q(Queues):
        def stats(self, name, now):
            queue = self._queues.get(name)
            if queue is None:
                return super().stats(name, now)
            ended = [entry for entry in queue.leased if entry.lease[0] <= now]
            for entry in ended:
                queue.leased.remove(entry.lease)
            stats = super().stats(name, now)
            for entry in ended:
                queue.leased.add(entry.lease, entry)
            return changed(stats, leased=stats.leased + len(ended))

    return broker(queues=Q)


@correct(BrokerContract)
def everything_is_once() -> Any:
    class Q(Queues):
        def publish(self, message, now):
            return super().publish(changed(message, once=True), now)

    return broker(queues=Q)


@correct(BrokerContract)
def once_is_for_ever() -> Any:
    """It does not declare once_ttl and remembers longer than an hour."""

    class Q(Queues):
        def __init__(self, once_ttl):
            super().__init__(10**9)

    return broker(queues=Q, once_ttl=False)


@correct(BrokerContract)
def random_turns() -> Any:
    class B(MemoryBroker):
        def _receive(self, names, limit, lease):
            self._turn = random.randrange(len(names))
            return super()._receive(names, limit, lease)

    return broker(B)


@correct(BrokerContract)
def slow_and_uneven() -> Any:
    async def pause() -> None:
        await asyncio.sleep(random.choice((0, 0, 0.001, 0.003)))

    class B(MemoryBroker):
        async def publish(self, messages):
            await pause()
            return await super().publish(messages)

        async def receive(self, queues, **kw):
            await pause()
            return await super().receive(queues, **kw)

        async def settle(self, settlements):
            await pause()
            return await super().settle(settlements)

        async def stats(self, queue):
            await pause()
            return await super().stats(queue)

    return broker(B)


@correct(BrokerContract)
def polls_gently() -> Any:
    """No push: it looks every hundredth of a second."""

    class B(MemoryBroker):
        async def receive(self, queues, *, limit, lease, wait):
            loop = asyncio.get_running_loop()
            until = loop.time() + wait
            while True:
                found = await super().receive(queues, limit=limit, lease=lease, wait=0.0)
                if found or loop.time() >= until:
                    return found
                await asyncio.sleep(min(0.01, wait))

    return broker(B)


@correct(BrokerContract)
def settles_from_the_end() -> Any:
    """Of one receipt twice in a batch the last counts."""

    class B(MemoryBroker):
        async def settle(self, settlements):
            return list(reversed(await super().settle(list(reversed(settlements)))))

    return broker(B)


@correct(BrokerContract)
def receipts_of_another_kind() -> Any:
    class Q(Queues):
        def _lease(self, queue, entry, until, until_instant):
            found = super()._lease(queue, entry, until, until_instant)
            receipt = f'{found.receipt}|"ü\\{entry.message.queue}' + "x" * 300
            self._leases[receipt] = self._leases.pop(found.receipt)
            entry.receipt = receipt
            return changed(found, receipt=receipt)

    return broker(queues=Q)


@correct(BrokerContract)
def three_levels_and_a_small_limit() -> Any:
    return broker(priority_levels=3, max_size=1000)


@correct(BrokerContract)
def a_transaction_of_the_callers() -> Any:
    return transactional(Transactional)


class Plain(MemoryBroker):
    """Refuses everything optional."""

    async def publish(self, messages):
        for message in messages:
            for capability in ("delay", "routing"):
                asked = message.route if capability == "routing" else message.delay or message.not_before
                if asked and not getattr(self.capabilities, capability):
                    raise UnsupportedCapability(f"{capability} is not declared; publish without")
        return await super().publish(messages)

    def join(self, backend):
        return None


def refusing(name: str, capability: str) -> Any:
    async def refuse(self, *arguments, **kw):
        raise UnsupportedCapability(f"{capability} is not declared by this adapter, so there is no {name}")

    return refuse


for _name in ("dead_list", "dead_replay", "dead_purge"):
    setattr(Plain, _name, refusing(_name, "dead_letters"))
Plain.broadcast = refusing("broadcast", "broadcast")
Plain.withdraw = refusing("withdraw", "withdraw")


async def _no_subscribe(self, channels):
    raise UnsupportedCapability("broadcast is not declared by this adapter, so there is no subscribe")
    yield


Plain.subscribe = _no_subscribe


@correct(BrokerContract)
def nothing_optional() -> Any:
    class Q(Queues):
        def settle(self, receipt, action, now):
            from stem_core.envelope import Ack, DeadLetter

            return super().settle(receipt, Ack() if isinstance(action, DeadLetter) else action, now)

    return broker(Plain, Q, **{name: False for name in BrokerCapabilities.__slots__ if name not in
                               {"priority_levels", "resolution", "max_size", "max_delay"}}, priority_levels=1)  # fmt: skip


# backends


@correct(BackendContract)
def a_backend_that_polls() -> Any:
    class B(MemoryBackend):
        async def wait(self, id, timeout):
            loop = asyncio.get_running_loop()
            until = loop.time() + timeout
            while True:
                found = (await self.fetch([id]))[0]
                if found is not None and found.terminal:
                    return found
                if loop.time() >= until:
                    return None
                await asyncio.sleep(min(0.01, timeout))

    return backend(B, push_wait=False)


@correct(BackendContract)
def a_backend_that_is_slow() -> Any:
    class B(MemoryBackend):
        async def record(self, updates):
            await asyncio.sleep(random.choice((0, 0.002)))
            return await super().record(updates)

        async def fetch(self, ids):
            await asyncio.sleep(random.choice((0, 0.002)))
            return await super().fetch(ids)

    return backend(B)


@correct(BackendContract)
def a_list_in_another_order() -> Any:
    """By id, and pages of uneven length."""

    class R(Records):
        def page(self, query, now):
            everything = super().page(changed(query, limit=10**6, cursor=None), now).items
            rows = sorted(
                (s for s in everything if query.cursor is None or s.id > query.cursor), key=lambda s: s.id
            )
            size = random.randint(1, query.limit)
            more = rows[size - 1].id if len(rows) > size else None
            return StatusPage(tuple(rows[:size]), more)

    return backend(records=R)


@correct(BackendContract)
def hints_are_only_hints() -> Any:
    """``left`` is anything; versions jump."""

    class G(Group):
        def add(self, member, outcome):
            answer = super().add(member, outcome)
            return GroupAnswer(random.randrange(5) if member in self._known else 0, answer.complete)

    class R(grouped(G)):
        def state_write(self, key, value, expect, ttl, now):
            for _ in range(random.randrange(1000)):
                next(self._counter)
            return super().state_write(key, value, expect, ttl, now)

    return backend(records=R)


@correct(BackendContract)
def a_bucket_of_tokens() -> Any:
    """Counts tokens where ours keeps an arrival time."""

    class R(Records):
        def limit_take(self, key, permits, rate, burst, now):
            if permits > burst:
                raise ValueError(f"{permits} permits of {burst}")
            buckets = self.__dict__.setdefault("buckets", {})
            tokens, last = buckets.get(key, (float(burst), now))
            tokens = min(burst, tokens + (now - last) * rate)
            if tokens + 1e-6 < permits:
                buckets[key] = (tokens, now)
                return LimitAnswer(False, (permits - tokens) / rate)
            buckets[key] = (tokens - permits, now)
            return LimitAnswer(True)

    return backend(records=R)


@correct(BackendContract)
def a_backend_with_nothing_optional() -> Any:
    class B(MemoryBackend):
        pass

    for capability, names in {
        "groups": ("group_create", "group_add", "group_close", "group_get"),
        "state": ("state_read", "state_write", "state_delete", "state_scan"),
        "limiter": ("limit_take",),
        "listing": ("list",),
    }.items():
        for name in names:
            setattr(B, name, refusing(name, capability))

    class R(Records):
        def put(self, status, ttl, now):
            super().put(status, None, now)

    return backend(B, R, **dict.fromkeys(BackendCapabilities.__slots__, False))


@correct(CommitterContract)
def a_committer_that_starts() -> Any:
    return committer(Starting)


@correct(CommitterContract)
def a_committer_that_starts_now_and_then() -> Any:
    class C(Starting):
        def start(self, steps, timeout, ended):
            return random.random() < 0.5 and super().start(steps, timeout, ended)

    return committer(C)
