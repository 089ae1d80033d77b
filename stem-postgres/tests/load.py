"""Producers and consumers that keep going while a server is taken from under them, and count what they did."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import Self

from stem_core.envelope import Ack, Message, Settlement, new_id
from stem_core.errors import PublishError, StemError
from stem_core.ports.committer import Starter, Step
from stem_core.ports.specs import AdapterOptions
from stem_core.status import StatusUpdate, TaskState
from stem_postgres.backend import PostgresBackend
from stem_postgres.broker import PostgresBroker
from stem_postgres.plugin import POSTGRES_BACKEND, POSTGRES_BROKER

__all__ = ["Load", "opened"]

QUEUE = "load"


@contextlib.asynccontextmanager
async def opened(url: str, namespace: str) -> AsyncIterator[tuple[PostgresBroker, PostgresBackend]]:
    """A broker and a backend of one namespace, open."""
    options = AdapterOptions(namespace=namespace, connect_timeout=5.0)
    broker, backend = POSTGRES_BROKER.open(url, options), POSTGRES_BACKEND.open(url, options)
    assert isinstance(broker, PostgresBroker)
    assert isinstance(backend, PostgresBackend)
    await broker.open()
    await backend.open()
    try:
        yield broker, backend
    finally:
        await broker.close()
        await backend.close()


class Load:
    """``confirmed``: ids whose publish returned. ``refused``: ids promised not to be stored. ``done``: acked by us."""

    def __init__(self, broker: PostgresBroker, backend: PostgresBackend, lease: float = 2.0) -> None:
        self.broker = broker
        self.backend = backend
        self.lease = lease
        self.confirmed: set[str] = set()
        self.refused: set[str] = set()
        self.seen: set[str] = set()
        self.done: set[str] = set()
        self.errors: list[StemError] = []
        self.started = 0
        self.last_done = 0.0
        self._stopping = asyncio.Event()
        self._producers: list[asyncio.Task[None]] = []
        self._consumers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [*self._producers, *self._consumers]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def start(self, producers: int = 2, consumers: int = 3) -> None:
        self._producers = [asyncio.create_task(self._produce()) for _ in range(producers)]
        self._producers.append(asyncio.create_task(self._enqueue()))
        self._consumers = [asyncio.create_task(self._consume()) for _ in range(consumers)]

    async def progress(self, more: int, timeout: float) -> None:
        """Wait until ``more`` messages than now were done."""
        goal = len(self.done) + more
        async with asyncio.timeout(timeout):
            while len(self.done) < goal:
                await asyncio.sleep(0.01)

    async def finish(self, timeout: float = 30.0) -> None:
        """Stop publishing, let everything confirmed be done, stop consuming."""
        self._stopping.set()
        await asyncio.gather(*self._producers)
        async with asyncio.timeout(timeout):
            while not self.confirmed <= self.seen:
                await asyncio.sleep(0.02)
            while not await self._empty():
                await asyncio.sleep(0.05)
        for task in self._consumers:
            task.cancel()
        await asyncio.gather(*self._consumers, return_exceptions=True)

    async def _empty(self) -> bool:
        stats = await self.broker.stats(QUEUE)
        return not (stats.ready or stats.leased or stats.scheduled)

    async def _produce(self) -> None:
        while not self._stopping.is_set():
            batch = [Message(id=new_id(), queue=QUEUE, sealed=b"x" * 200) for _ in range(20)]
            try:
                await self.broker.publish(batch)
            except PublishError as error:
                self.errors.append(error)
                if error.outcome == "refused":
                    self.refused.update(each.id for each in batch)
                await asyncio.sleep(0.05)
            else:
                self.confirmed.update(each.id for each in batch)
            await asyncio.sleep(0.005)

    async def _enqueue(self) -> None:
        """As a Stem does it: started where that can be, else committed; told once, whatever happens."""
        committer = self.broker.join(self.backend)
        assert isinstance(committer, Starter)
        while not self._stopping.is_set():
            ids = [new_id() for _ in range(1 + self.started % 3)]
            steps = [
                Step(
                    updates=(StatusUpdate(id=id, state=TaskState.QUEUED),),
                    publishes=(Message(id=id, queue=QUEUE, sealed=b"x" * 200),),
                )
                for id in ids
            ]
            future: asyncio.Future[Sequence[bool] | Exception] = asyncio.get_running_loop().create_future()
            try:
                if committer.start(steps, 5.0, future.set_result):
                    self.started += 1
                    if isinstance(outcome := await future, Exception):
                        raise outcome
                else:
                    await committer.commit(steps)
            except StemError as error:
                self.errors.append(error)
            else:
                self.confirmed.update(ids)
            await asyncio.sleep(0.005)

    async def _consume(self) -> None:
        committer = self.broker.join(self.backend)
        assert committer is not None
        while True:
            try:
                deliveries = await self.broker.receive([QUEUE], limit=50, lease=self.lease, wait=1.0)
                self.seen.update(each.message.id for each in deliveries)
                steps = [
                    Step(
                        settlement=Settlement(each.receipt, Ack()),
                        updates=(StatusUpdate(id=each.message.id, state=TaskState.SUCCEEDED, payload=b"1"),),
                    )
                    for each in deliveries
                ]
                answers = await committer.commit(steps)
            except StemError as error:
                self.errors.append(error)
                await asyncio.sleep(0.05)
            else:
                pairs = zip(deliveries, answers, strict=True)
                self.done.update(each.message.id for each, answer in pairs if answer)
                self.last_done = time.monotonic()
