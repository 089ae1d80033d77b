"""The memory broker: the broker port on a :class:`Store`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any

from stem_core.builtin.memory.backend import MemoryBackend
from stem_core.builtin.memory.committer import MemoryCommitter
from stem_core.builtin.memory.queues import DeadFilter
from stem_core.builtin.memory.store import Inbox, open_store
from stem_core.builtin.messages import check_messages
from stem_core.builtin.waiters import Waiter
from stem_core.clock import instant
from stem_core.envelope import DeadMessage, DeadPage, Delivery, Message, Receipt, Settlement
from stem_core.errors import AdapterError, UnsupportedCapability
from stem_core.ports.backend import Backend
from stem_core.ports.broker import QueueStats
from stem_core.ports.capabilities import BrokerCapabilities
from stem_core.ports.committer import Committer, Step
from stem_core.ports.specs import AdapterOptions

__all__ = ["MemoryBroker"]


class MemoryBroker:
    """``memory://`` and ``memory://name``. Usable from every thread and event loop."""

    def __init__(self, url: str, options: AdapterOptions, capabilities: BrokerCapabilities) -> None:
        self.capabilities = capabilities
        self._url = url
        self._store = open_store(url, options)
        self._is_open = False
        self._turn = 0

    async def open(self) -> None:
        self._is_open = True

    async def close(self) -> None:
        self._is_open = False
        with self._store.lock:
            self._store.for_messages.wake_all()
            self._store.for_broadcasts.wake_all()

    async def publish(self, messages: Sequence[Message]) -> Sequence[bool]:
        self._check(messages)
        store = self._store
        with store.lock:
            now = store.clock.time()
            added = [store.queues.publish(message, now) for message in messages]
            for name in {message.queue for message in messages}:
                store.for_messages.wake(name)
        return added

    async def receive(
        self, queues: Sequence[str], *, limit: int, lease: float, wait: float
    ) -> Sequence[Delivery]:
        loop = asyncio.get_running_loop()
        names = list(dict.fromkeys(queues))
        deadline = loop.time() + wait
        while True:
            waiter = None
            with self._store.lock:
                self._check_open()
                deliveries = self._receive(names, limit, lease)
                patience = deadline - loop.time()
                if deliveries or patience <= 0 or limit < 1:
                    return deliveries
                waiter = Waiter()
                for name in names:
                    self._store.for_messages.add(name, waiter)
                due = self._store.queues.next_event(names)
            try:
                await waiter.wait(patience, self._store.clock, due)
            finally:
                with self._store.lock:
                    for name in names:
                        self._store.for_messages.discard(name, waiter)

    def _receive(self, names: list[str], limit: int, lease: float) -> list[Delivery]:
        """One attempt; each call begins with another queue, so equal ones take turns across calls too."""
        first = self._turn % len(names) if names else 0
        self._turn += 1
        turned = names[first:] + names[:first]
        return self._store.queues.receive(turned, limit, lease, self._store.clock.time())

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[bool]:
        self._check_open()
        store = self._store
        with store.lock:
            now = store.clock.time()
            settled = [store.queues.settle(each.receipt, each.action, now) for each in settlements]
            for name in set(settled):
                if name is not None:
                    store.for_messages.wake(name)
        return [name is not None for name in settled]

    async def extend(self, receipts: Sequence[Receipt], lease: float) -> Sequence[bool]:
        self._check_open()
        store = self._store
        with store.lock:
            now = store.clock.time()
            extended = [store.queues.extend(receipt, lease, now) for receipt in receipts]
            for name in set(extended):
                if name is not None:  # a lease made shorter may now be the next to end
                    store.for_messages.wake(name)
        return [name is not None for name in extended]

    async def stats(self, queue: str) -> QueueStats:
        self._check_open()
        with self._store.lock:
            return self._store.queues.stats(queue, self._store.clock.time())

    async def purge(self, queue: str) -> int:
        self._check_open()
        with self._store.lock:
            return self._store.queues.purge(queue, self._store.clock.time())

    def join(self, backend: Backend) -> Committer | None:
        if isinstance(backend, MemoryBackend) and backend.store is self._store:
            return MemoryCommitter(self._store, self._check)
        return None

    # dead letters

    async def dead_list(
        self,
        queue: str,
        *,
        ids: Sequence[str] | None = None,
        reason: str | None = None,
        before: datetime | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> DeadPage:
        self._check_open()
        items: list[DeadMessage] = []
        last = 0
        with self._store.lock:
            after = 0 if cursor is None else int(cursor)
            for place, dead in self._store.queues.dead(queue, after, _filter(ids, reason, before)):
                if len(items) == limit:
                    return DeadPage(tuple(items), str(last))
                items.append(dead)
                last = place
        return DeadPage(tuple(items))

    async def dead_replay(
        self,
        queue: str,
        *,
        ids: Sequence[str] | None = None,
        reason: str | None = None,
        before: datetime | None = None,
        limit: int | None = None,
        dry_run: bool = False,
    ) -> Sequence[tuple[str, int]]:
        self._check_open()
        store = self._store
        with store.lock:
            found = list(store.queues.dead(queue, 0, _filter(ids, reason, before)))[:limit]
            if dry_run:
                return [(dead.message.id, dead.generation + 1) for _, dead in found]
            now = store.clock.time()
            replayed = [store.queues.replay(queue, place, now) for place, _ in found]
            store.for_messages.wake(queue)
        return replayed

    async def dead_purge(
        self,
        queue: str,
        *,
        ids: Sequence[str] | None = None,
        reason: str | None = None,
        before: datetime | None = None,
        limit: int | None = None,
        keep: int = 0,
    ) -> int:
        self._check_open()
        store = self._store
        with store.lock:
            found = list(store.queues.dead(queue, 0, _filter(ids, reason, before)))
            gone = found[: max(0, len(found) - keep)][:limit]
            now = store.clock.time()
            for place, _ in gone:
                store.queues.forget_dead(queue, place, now)
        return len(gone)

    # broadcast

    async def broadcast(self, channel: str, data: bytes) -> None:
        self._check_open()
        with self._store.lock:
            for inbox in self._store.inboxes:
                if channel in inbox.channels:
                    inbox.items.append((channel, data))
            self._store.for_broadcasts.wake(channel)

    async def subscribe(self, channels: Sequence[str]) -> AsyncIterator[tuple[str, bytes]]:
        inbox = Inbox(channels)
        with self._store.lock:
            self._store.inboxes.append(inbox)
        try:
            while True:
                waiter = None
                with self._store.lock:
                    self._check_open()
                    if not inbox.items:
                        waiter = Waiter()
                        for channel in inbox.channels:
                            self._store.for_broadcasts.add(channel, waiter)
                if waiter is None:
                    yield inbox.items.popleft()
                    continue
                try:
                    await waiter.wait()
                finally:
                    with self._store.lock:
                        for channel in inbox.channels:
                            self._store.for_broadcasts.discard(channel, waiter)
        finally:
            with self._store.lock:
                self._store.inboxes.remove(inbox)

    async def withdraw(self, ids: Sequence[str]) -> Sequence[bool]:
        self._check_open()
        with self._store.lock:
            now = self._store.clock.time()
            return [self._store.queues.withdraw(id, now) for id in ids]

    # transactional_publish

    async def commit_on(self, conn: Any, steps: Sequence[Step]) -> Sequence[bool]:
        return self.commit_on_sync(conn, steps)

    def commit_on_sync(self, conn: Any, steps: Sequence[Step]) -> Sequence[bool]:
        raise UnsupportedCapability(
            "memory does not declare transactional_publish: it has no transactions a caller could share; "
            "publish without publish_connection, or use an adapter that declares it (stem-postgres)"
        )

    def _check(self, messages: Sequence[Message]) -> None:
        self._check_open()
        check_messages(messages, self.capabilities)

    def _check_open(self) -> None:
        if not self._is_open:
            raise AdapterError(f"The broker {self._url!r} is not open; await its open() first")


def _filter(ids: Sequence[str] | None, reason: str | None, before: datetime | None) -> DeadFilter:
    wanted = None if ids is None else frozenset(ids)
    moment = None if before is None else instant(before)

    def matches(dead: DeadMessage) -> bool:
        return (
            (wanted is None or dead.message.id in wanted)
            and (reason is None or dead.reason == reason)
            and (moment is None or dead.dead_at < moment)
        )

    return matches
