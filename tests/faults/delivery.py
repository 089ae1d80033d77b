"""Faults of laws 9, 12, 13, 14, 16 and 17."""

from __future__ import annotations

import asyncio
from typing import Any

from stem_core.builtin.waiters import Waiters
from stem_core.contracts import BrokerContract
from stem_core.envelope import DeadPage
from stem_core.errors import AdapterError
from tests.faults.harness import broken
from tests.faults.memory import MemoryBroker, Queues, broker
from tests.faults.publishing import changed

# law 9: order


def published_as(change: Any, name: str) -> None:
    """Stored with other priorities, and given back with the right ones."""

    def make() -> Any:
        class Q(Queues):
            def publish(self, message, now):
                return super().publish(changed(message, priority=change(message.priority)), now)

            def _lease(self, queue, entry, until, until_instant):
                found = super()._lease(queue, entry, until, until_instant)
                return changed(found, message=changed(found.message, priority=self.real[entry.message.id]))

        class B(MemoryBroker):
            async def publish(self, messages):
                self._store.queues.__dict__.setdefault("real", {}).update(
                    {m.id: m.priority for m in messages}
                )
                return await super().publish(messages)

        return broker(B, Q)

    make.__name__ = name
    broken(9, BrokerContract)(make)


published_as(lambda level: 0, "priorities_are_ignored")
published_as(lambda level: 9 - level, "zero_is_the_highest")
published_as(lambda level: level // 2, "five_levels_are_ten")


@broken(9, BrokerContract)
def last_in_first_out() -> Any:
    class Q(Queues):
        def publish(self, message, now):
            self._order = iter(
                range(-len(self._queues) - sum(len(q.by_id) for q in self._queues.values()) - 1, 0)
            )
            return super().publish(message, now)

        def _lease(self, queue, entry, until, until_instant):
            self.tokens = getattr(self, "tokens", 10**9) + 1
            self._order = iter([self.tokens])
            return super()._lease(queue, entry, until, until_instant)

        def settle(self, receipt, action, now):
            self._order = iter([10**8])
            return super().settle(receipt, action, now)

    return broker(queues=Q)


@broken(9, BrokerContract)
def the_first_queue_first() -> Any:
    """No turns: while it has work the others starve."""

    class B(MemoryBroker):
        def _receive(self, names, limit, lease):
            found = []
            for name in names:
                found += self._store.queues.receive(
                    [name], limit - len(found), lease, self._store.clock.time()
                )
            return found

    return broker(B, global_priority=False)


@broken(9, BrokerContract)
def levels_stay_within_their_queue() -> Any:
    """Declares global_priority and takes queue after queue."""

    class B(MemoryBroker):
        def _receive(self, names, limit, lease):
            self._turn += 1
            first = self._turn % len(names)
            found = []
            for name in names[first:] + names[:first]:
                found += self._store.queues.receive(
                    [name], limit - len(found), lease, self._store.clock.time()
                )
            return found

    return broker(B)


@broken(9, BrokerContract)
def a_batch_comes_backwards() -> Any:
    class B(MemoryBroker):
        async def receive(self, queues, **kw):
            return list(reversed(await super().receive(queues, **kw)))

    return broker(B)


@broken(9, BrokerContract)
def retry_loses_the_level() -> Any:
    class Q(Queues):
        def settle(self, receipt, action, now):
            entry = self._leases.get(receipt, (None, None))[1]
            if entry is not None and entry.message.priority:
                entry.message = changed(entry.message, priority=0)
            return super().settle(receipt, action, now)

    return broker(queues=Q)


# law 12: dead letters


def dying(name: str, **methods: Any) -> None:
    def make() -> Any:
        return broker(queues=type("Q", (Queues,), methods))

    make.__name__ = name
    broken(12, BrokerContract)(make)


def _replay_copies(self, name, place, now):
    entry, dead = self._queues[name].dead[place]
    answer = Queues.replay(self, name, place, now)
    self._queues[name].dead[place] = (entry, dead)
    return answer


def _replay_keeps_attempt(self, name, place, now):
    entry, _ = self._queues[name].dead[place]
    attempt = entry.attempt
    answer = Queues.replay(self, name, place, now)
    entry.attempt = attempt
    return answer


def _replay_keeps_deliveries(self, name, place, now):
    entry, _ = self._queues[name].dead[place]
    deliveries = entry.deliveries
    answer = Queues.replay(self, name, place, now)
    entry.deliveries = deliveries
    return answer


def _replay_forgets_generation(self, name, place, now):
    entry, _ = self._queues[name].dead[place]
    answer = Queues.replay(self, name, place, now)
    entry.generation = 0
    return answer


def _replay_publishes_again(self, name, place, now):
    """Removes, then publishes: a once id is known and the message is lost."""
    entry, _ = self._queues[name].dead[place]
    self.forget_dead(name, place, now)
    self.publish(entry.message, now)
    return entry.message.id, entry.generation + 1


def _replay_waits_again(self, name, place, now):
    entry, _ = self._queues[name].dead[place]
    answer = Queues.replay(self, name, place, now)
    if entry.message.delay:
        queue = self._queues[name]
        queue.levels[entry.message.priority].remove(entry.order)
        queue.schedule(entry, now + entry.message.delay)
    return answer


def _short_detail(self, queue, entry, action, now):
    return Queues._bury(self, queue, entry, changed(action, detail=action.detail[:255]), now)


def _no_reason(self, name, after, matches):
    return Queues.dead(self, name, after, lambda dead: matches(changed(dead, reason="rejected")))


dying("replay_leaves_a_copy", replay=_replay_copies)
dying("replay_keeps_the_attempt", replay=_replay_keeps_attempt)
dying("replay_keeps_the_hand_outs", replay=_replay_keeps_deliveries)
dying("replay_is_the_same_generation", replay=_replay_forgets_generation)
dying("replay_removes_then_publishes", replay=_replay_publishes_again)
dying("replay_waits_for_the_first_delay", replay=_replay_waits_again)
dying("details_are_cut", _bury=_short_detail)
dying("the_reason_is_no_filter", dead=_no_reason)


@broken(12, BrokerContract)
def pages_continue_after_a_time() -> Any:
    """The cursor is a time: of several that died in one moment the rest is skipped."""

    class B(MemoryBroker):
        async def dead_list(self, queue, *, cursor=None, limit=100, **filters):
            page = await super().dead_list(queue, limit=10_000, **filters)
            items = [d for d in page.items if cursor is None or d.dead_at.isoformat() > cursor]
            more = items[limit - 1].dead_at.isoformat() if len(items) > limit else None
            return DeadPage(tuple(items[:limit]), more)

    return broker(B)


@broken(12, BrokerContract)
def purge_keeps_the_oldest() -> Any:
    class B(MemoryBroker):
        async def dead_purge(self, queue, *, keep=0, limit=None, **filters):
            found = (await self.dead_list(queue, limit=10_000, **filters)).items
            ids = [d.message.id for d in found[keep:]][:limit]
            return await super().dead_purge(queue, ids=ids)

    return broker(B)


@broken(12, BrokerContract)
def a_dry_run_acts() -> Any:
    class B(MemoryBroker):
        async def dead_replay(self, queue, *, dry_run=False, **filters):
            return await super().dead_replay(queue, **filters)

    return broker(B)


# law 13: races, each a gap between a look and a deed


class Gapped(MemoryBroker):
    async def gap(self):
        await asyncio.sleep(0)


@broken(13, BrokerContract)
def selected_and_then_updated() -> Any:
    """SELECT, then UPDATE by id: two claim one row."""

    class B(Gapped):
        async def receive(self, queues, *, limit, lease, wait):
            store = self._store
            now = store.clock.time()
            seen = []
            for name in queues:
                queue = store.queues._queues.get(name)
                if queue is not None:
                    store.queues.advance(queue, now)
                    seen += [(queue, entry) for level in queue.levels for entry in level]
            await self.gap()
            found = []
            for queue, entry in seen[:limit]:
                queue.levels[entry.message.priority].remove(entry.order)
                if entry.lease is not None:
                    queue.leased.remove(entry.lease)
                    store.queues._end_lease(entry)
                if entry.message.id in queue.by_id:
                    from stem_core.clock import instant

                    found.append(store.queues._lease(queue, entry, now + lease, instant(now + lease)))
            return found

    return broker(B, fifo=False, global_priority=False, priority_levels=1)


@broken(13, BrokerContract)
def the_queue_is_read_and_written_back() -> Any:
    """A publish that reads the whole queue, adds to it and stores it."""

    class B(Gapped):
        async def publish(self, messages):
            self._check_open()
            kept = self.__dict__.setdefault("kept", self._store.__dict__.setdefault("kept", {}))
            before = {m.queue: kept.get(m.queue, 0) for m in messages}
            await self.gap()
            lost = any(kept.get(name, 0) != count for name, count in before.items())
            for message in messages:
                kept[message.queue] = kept.get(message.queue, 0) + 1
            if lost:
                return [True] * len(messages)
            return await super().publish(messages)

    return broker(B)


@broken(13, BrokerContract)
def checked_and_then_settled() -> Any:
    """Both of two settles of one receipt find it good."""

    class B(Gapped):
        async def settle(self, settlements):
            good = [s.receipt in self._store.queues._leases for s in settlements]
            await self.gap()
            await super().settle(settlements)
            seen = set()
            return [
                ok and not (s.receipt in seen or seen.add(s.receipt))
                for ok, s in zip(good, settlements, strict=True)
            ]

    return broker(B)


@broken(13, BrokerContract)
def counted_and_then_purged() -> Any:
    class B(Gapped):
        async def purge(self, queue):
            stats = await self.stats(queue)
            await self.gap()
            await super().purge(queue)
            return stats.ready + stats.scheduled

    return broker(B)


@broken(13, BrokerContract)
def an_ended_lease_is_listed_twice() -> Any:
    """An index by deadline that keeps the entry it had before."""

    class Q(Queues):
        def receive(self, names, limit, lease, now):
            found = super().receive(names, limit, lease, now)
            return (found + [each for each in found if each.deliveries > 1])[:limit]

    return broker(queues=Q)


# law 14: receive


@broken(14, BrokerContract)
def the_limit_is_per_queue() -> Any:
    """COUNT of a read over several streams."""

    class B(MemoryBroker):
        def _receive(self, names, limit, lease):
            now = self._store.clock.time()
            return [d for name in names for d in self._store.queues.receive([name], limit, lease, now)]

    return broker(B, global_priority=False)


@broken(14, BrokerContract)
def a_batch_is_waited_for() -> Any:
    """Returns when ``limit`` are there, else after ``wait``."""

    class B(MemoryBroker):
        async def receive(self, queues, *, limit, lease, wait):
            found = list(await super().receive(queues, limit=limit, lease=lease, wait=wait))
            if 0 < len(found) < limit and wait > 0.1:
                await asyncio.sleep(wait)
            return found

    return broker(B)


@broken(14, BrokerContract)
def due_work_wakes_nobody() -> Any:
    class Q(Queues):
        def next_event(self, names):
            return None

    return broker(queues=Q)


@broken(14, BrokerContract)
def only_the_first_queue_wakes() -> Any:
    class B(MemoryBroker):
        async def receive(self, queues, *, limit, lease, wait):
            first = await super().receive(queues, limit=limit, lease=lease, wait=0.0)
            if first or wait == 0.0:
                return first
            await super().receive(queues[:1], limit=0, lease=lease, wait=0.0)
            return await super().receive(queues[:1], limit=limit, lease=lease, wait=wait)

    return broker(B)


@broken(14, BrokerContract)
def a_notification_wakes_one() -> Any:
    """And only one, whatever the number of new messages."""

    class One(Waiters):
        __slots__ = ()

        def wake(self, key):
            for waiter in list(self._by_key.get(key, ()))[:1]:
                waiter.wake()

    class B(MemoryBroker):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            if not isinstance(self._store.for_messages, One):
                self._store.for_messages = One()

    return broker(B)


@broken(14, BrokerContract)
def idle_is_a_busy_loop() -> Any:
    class B(MemoryBroker):
        async def receive(self, queues, *, limit, lease, wait):
            loop = asyncio.get_running_loop()
            until = loop.time() + wait
            while True:
                found = await super().receive(queues, limit=limit, lease=lease, wait=0.0)
                if found or loop.time() >= until:
                    return found
                await asyncio.sleep(0)

    return broker(B)


@broken(14, BrokerContract)
def claimed_for_nobody() -> Any:
    """Claims in the background: whoever cancels leaves the claim running, and it takes what comes."""

    class B(MemoryBroker):
        async def receive(self, queues, *, limit, lease, wait):
            self._check_open()
            task = asyncio.ensure_future(super().receive(queues, limit=limit, lease=lease, wait=wait))
            self.__dict__.setdefault("tasks", []).append(task)
            return await asyncio.shield(task)

        async def close(self):
            for task in self.__dict__.get("tasks", ()):
                task.cancel()
            await super().close()

    return broker(B)


@broken(14, BrokerContract)
def a_cancelled_claim_has_no_deadline() -> Any:
    """Popped first, the lease written after an await: cancelled in between it is nobody's, for ever."""

    class B(MemoryBroker):
        async def receive(self, queues, *, limit, lease, wait):
            found = await super().receive(queues, limit=limit, lease=86_400.0, wait=wait)
            if found:
                await asyncio.sleep(0)
                await self.extend([each.receipt for each in found], lease)
                from datetime import timedelta

                short = timedelta(seconds=86_400.0 - lease)
                found = [changed(each, lease_until=each.lease_until - short) for each in found]
            return found

    return broker(B)


@broken(14, BrokerContract)
def a_wait_holds_the_connection() -> Any:
    """One connection, one command at a time: nothing can be settled while a receive waits."""

    class B(MemoryBroker):
        async def receive(self, queues, **kw):
            async with self.line():
                return await super().receive(queues, **kw)

        async def settle(self, settlements):
            async with self.line():
                return await super().settle(settlements)

        def line(self):
            return self.__dict__.setdefault("lock", asyncio.Lock())

    return broker(B)


# law 16: close


@broken(16, BrokerContract)
def a_second_close_fails() -> Any:
    class B(MemoryBroker):
        async def close(self):
            self._check_open()
            await super().close()

    return broker(B)


@broken(16, BrokerContract)
def closed_and_still_in_use() -> Any:
    class B(MemoryBroker):
        async def close(self):
            return None

    return broker(B)


@broken(16, BrokerContract)
def a_closed_one_raises_the_drivers_error() -> Any:
    class B(MemoryBroker):
        def _check_open(self):
            try:
                super()._check_open()
            except AdapterError:
                raise RuntimeError("pool is closed") from None

    return broker(B)


@broken(16, BrokerContract)
def close_waits_for_the_wait() -> Any:
    class B(MemoryBroker):
        async def receive(self, queues, **kw):
            self.__dict__["busy"] = busy = asyncio.Event()
            try:
                return await super().receive(queues, **kw)
            finally:
                busy.set()

        async def close(self):
            if "busy" in self.__dict__:
                await self.__dict__["busy"].wait()
            await super().close()

    return broker(B)


# law 17: withdraw


def withdrawing(change: Any, name: str) -> None:
    def make() -> Any:
        class Q(Queues):
            def withdraw(self, id, now):
                return change(self, super(), id, now)

        return broker(queues=Q)

    make.__name__ = name
    broken(17, BrokerContract)(make)


def _leased_too(self, base, id, now):
    for queue in self._queues.values():
        entry = queue.by_id.get(id)
        if entry is not None and entry.receipt is not None:
            queue.leased.remove(entry.lease)
            self._end_lease(entry)
            queue.make_ready(entry, now)
    return base.withdraw(id, now)


def _says_true(self, base, id, now):
    base.withdraw(id, now)
    return True


def _ready_only(self, base, id, now):
    if any(id in q.by_id and q.by_id[id].due is not None for q in self._queues.values()):
        return False
    return base.withdraw(id, now)


def _dead_too(self, base, id, now):
    for name, queue in self._queues.items():
        for place, (entry, _) in list(queue.dead.items()):
            if entry.message.id == id:
                self.forget_dead(name, place, now)
                return True
    return base.withdraw(id, now)


def _marks(self, base, id, now):
    """Marks it as withdrawn and leaves it where it is."""
    return any(id in q.by_id and q.by_id[id].receipt is None for q in self._queues.values())


withdrawing(_leased_too, "withdraw_takes_leased_ones")
withdrawing(_says_true, "withdraw_says_yes")
withdrawing(_ready_only, "withdraw_misses_scheduled_ones")
withdrawing(_dead_too, "withdraw_takes_dead_letters")
withdrawing(_marks, "withdraw_only_marks")
