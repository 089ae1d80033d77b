"""Faults of law 13: races, each a gap between a look and a deed."""

from __future__ import annotations

import asyncio
from typing import Any

from stem_core.contracts import BrokerContract
from tests.faults.harness import broken
from tests.faults.memory import MemoryBroker, Queues, broker

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
