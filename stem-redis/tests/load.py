"""Producers and consumers that carry on through every error, and keep account."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from stem_core.envelope import Ack, Message, Release, Retry, Settlement
from stem_core.errors import PublishError, StemError
from stem_core.ports.committer import Step
from stem_core.status import StatusUpdate, TaskState
from stem_redis.backend import RedisBackend
from stem_redis.broker import RedisBroker
from stem_redis.committer import RedisCommitter

QUEUES = ("a", "b")
LEASE = 1.0


class Load:
    """``async with Load(adapters, url) as load``: publishes, receives and settles until told to drain.

    A publish that failed is repeated until it is answered, as ``once`` allows; starters send new work without waiting,
    several batches at a time, and repeat nothing; consumers sometimes retry, release, or forget a delivery as a
    crashed worker would.
    """

    def __init__(
        self,
        adapters: Any,
        url: str,
        *,
        producers: int = 2,
        starters: int = 1,
        consumers: int = 3,
        seed: int = 1,
    ) -> None:
        self._adapters = adapters
        self._url = url
        self._producers = producers
        self._starters = starters
        self._consumers = consumers
        self._random = random.Random(seed)
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._ids = itertools.count()
        self.published: set[str] = set()
        """Acknowledged."""
        self.started = 0
        """Of these, how many were started without waiting."""
        self.unknown: set[str] = set()
        """Started, and their fate was not known."""
        self.refused: set[str] = set()
        """Started, and said to be stored nowhere."""
        self.run: set[str] = set()
        """Received, and acked as far as the consumer could."""
        self.acked: set[str] = set()
        """Acked and told so: an answer may get lost."""
        self.settled_twice: set[str] = set()
        """Acked by two receipts, both told that they were the one."""
        self.errors = 0

    async def __aenter__(self) -> Self:
        for _ in range(self._producers):
            self._tasks.append(asyncio.create_task(self._produce(await self._adapters.broker(self._url))))
        for _ in range(self._starters):
            self._tasks.append(
                asyncio.create_task(
                    self._start(
                        await self._adapters.broker(self._url), await self._adapters.backend(self._url)
                    )
                )
            )
        for _ in range(self._consumers):
            self._tasks.append(asyncio.create_task(self._consume(await self._adapters.broker(self._url))))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def progress(self, count: int) -> None:
        """Until ``count`` more messages are acked."""
        goal = len(self.acked) + count
        async with asyncio.timeout(60):
            while len(self.acked) < goal:
                self._check()
                await asyncio.sleep(0.01)

    async def drain(self) -> None:
        """Stop publishing, and wait until the queues are empty."""
        self._stopping.set()
        async with asyncio.timeout(60):
            await asyncio.gather(*self._tasks[: self._producers + self._starters])
            broker = await self._adapters.broker(self._url)
            for queue in QUEUES:
                stats = None
                while stats is None or stats.ready + stats.scheduled + stats.leased:
                    self._check()
                    await asyncio.sleep(0.02)
                    stats = await broker.stats(queue)

    def lost(self) -> set[str]:
        return self.published - self.run

    def _check(self) -> None:
        for task in self._tasks:
            if task.done() and not task.cancelled() and task.exception():
                raise RuntimeError("the load itself failed") from task.exception()

    async def _produce(self, broker: RedisBroker) -> None:
        while not self._stopping.is_set():
            batch = [
                Message(
                    id=f"m{next(self._ids)}",
                    queue=self._random.choice(QUEUES),
                    sealed=self._random.randbytes(self._random.randrange(300)),
                    priority=self._random.choice((0, 0, 0, 5, 9)),
                    delay=self._random.choice((0, 0, 0, 0.05)),
                    once=True,
                )
                for _ in range(self._random.choice((1, 10, 40)))
            ]
            while True:
                try:
                    await broker.publish(batch)
                    break
                except StemError:
                    self.errors += 1
                    await asyncio.sleep(0.05)
            self.published |= {message.id for message in batch}
            await asyncio.sleep(0.005)

    async def _start(self, broker: RedisBroker, backend: RedisBackend) -> None:
        committer = broker.join(backend)
        assert isinstance(committer, RedisCommitter)
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            under_way: list[tuple[list[Step], asyncio.Future[Sequence[bool] | Exception]]] = []
            for _ in range(self._random.choice((1, 3, 10))):
                steps = [self._new_work() for _ in range(self._random.choice((1, 10, 40)))]
                told: asyncio.Future[Sequence[bool] | Exception] = loop.create_future()
                if not committer.start(steps, 1.0, told.set_result):
                    break
                under_way.append((steps, told))
            for steps, told in under_way:
                self._account(steps, await told)
            if not under_way:  # it wants a connection
                steps = [self._new_work()]
                try:
                    self._account(steps, await committer.commit(steps))
                except StemError as error:
                    self._account(steps, error)
                    await asyncio.sleep(0.05)
            await asyncio.sleep(0.005)

    def _new_work(self) -> Step:
        message = Message(
            id=f"s{next(self._ids)}",
            queue=self._random.choice(QUEUES),
            sealed=self._random.randbytes(self._random.randrange(300)),
            priority=self._random.choice((0, 0, 5)),
        )
        row = StatusUpdate(
            id=message.id,
            state=TaskState.QUEUED,
            name="t",
            queue=message.queue,
            enqueued_at=datetime.now(UTC),
            ttl=60,
        )
        return Step(updates=(row,), publishes=(message,))

    def _account(self, steps: Sequence[Step], told: Sequence[bool] | Exception) -> None:
        ids = {step.publishes[0].id for step in steps}
        if not isinstance(told, Exception):
            assert all(told)
            self.published |= ids
            self.started += len(ids)
            return
        self.errors += 1
        if isinstance(told, PublishError) and told.outcome == "refused":
            self.refused |= ids
        else:
            self.unknown |= ids

    async def _consume(self, broker: RedisBroker) -> None:
        while True:
            try:
                got = await broker.receive(QUEUES, limit=50, lease=LEASE, wait=2)
                kept = [each for each in got if self._random.random() > 0.01]
                actions = [self._random.choices((Ack(), Retry(0.01), Release()), (20, 1, 1))[0] for _ in kept]
                self.run |= {
                    each.message.id
                    for each, action in zip(kept, actions, strict=True)
                    if isinstance(action, Ack)
                }
                answers = await broker.settle(
                    [Settlement(each.receipt, action) for each, action in zip(kept, actions, strict=True)]
                )
            except StemError:
                self.errors += 1
                await asyncio.sleep(0.05)
                continue
            for each, action, done in zip(kept, actions, answers, strict=True):
                if isinstance(action, Ack) and done:
                    self._ack(each.message.id)

    def _ack(self, id: str) -> None:
        if id in self.acked:
            self.settled_twice.add(id)
        self.acked.add(id)
