"""A broker that keeps what is published and hands nothing out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from stem_core.envelope import DeadPage, Delivery, Message, Receipt, Settlement
from stem_core.ports.backend import Backend
from stem_core.ports.broker import QueueStats
from stem_core.ports.capabilities import BrokerCapabilities
from stem_core.ports.committer import Committer, Step

__all__ = ["RecordingBroker"]


class RecordingBroker:
    """Declares what the broker it stands in for declares, so that options are planned as they would be there."""

    def __init__(self, capabilities: BrokerCapabilities) -> None:
        self.capabilities = capabilities
        #: Everything published, in order.
        self.messages: list[Message] = []
        self._known: set[tuple[str, str]] = set()

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""

    async def publish(self, messages: Sequence[Message]) -> Sequence[bool]:
        return [self._add(each) for each in messages]

    def _add(self, message: Message) -> bool:
        key = message.queue, message.id
        if message.once and key in self._known:
            return False
        self._known.add(key)
        self.messages.append(message)
        return True

    async def receive(
        self, queues: Sequence[str], *, limit: int, lease: float, wait: float
    ) -> Sequence[Delivery]:
        await asyncio.sleep(wait)
        return []

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[bool]:
        return [False for _ in settlements]

    async def extend(self, receipts: Sequence[Receipt], lease: float) -> Sequence[bool]:
        return [False for _ in receipts]

    async def stats(self, queue: str) -> QueueStats:
        return QueueStats(ready=sum(each.queue == queue for each in self.messages))

    async def purge(self, queue: str) -> int:
        before = len(self.messages)
        self.messages = [each for each in self.messages if each.queue != queue]
        return before - len(self.messages)

    def join(self, backend: Backend) -> Committer | None:
        return None

    async def dead_list(self, queue: str, **_: Any) -> DeadPage:
        return DeadPage(())

    async def dead_replay(self, queue: str, **_: Any) -> Sequence[tuple[str, int]]:
        return []

    async def dead_purge(self, queue: str, **_: Any) -> int:
        return 0

    async def broadcast(self, channel: str, data: bytes) -> None:
        """Nobody listens."""

    async def subscribe(self, channels: Sequence[str]) -> AsyncIterator[tuple[str, bytes]]:
        await asyncio.Event().wait()
        yield "", b""

    async def withdraw(self, ids: Sequence[str]) -> Sequence[bool]:
        gone = {each.id for each in self.messages} & set(ids)
        self.messages = [each for each in self.messages if each.id not in gone]
        return [id in gone for id in ids]

    async def commit_on(self, conn: Any, steps: Sequence[Step]) -> Sequence[bool]:
        return self.commit_on_sync(conn, steps)

    def commit_on_sync(self, conn: Any, steps: Sequence[Step]) -> Sequence[bool]:
        """Recorded at once: the caller's transaction is the caller's."""
        for step in steps:
            for message in step.publishes:
                self._add(message)
        return [True for _ in steps]
