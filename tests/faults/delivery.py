"""Faults of laws 9, 14, 16 and 17."""

from __future__ import annotations

import asyncio
from typing import Any

from stem_core.builtin.waiters import Waiters
from stem_core.contracts import BrokerContract
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
