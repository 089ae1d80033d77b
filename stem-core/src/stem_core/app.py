""":class:`StemApp`: a producer and a worker in one object, for small applications and for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self, TypeVar

from stem_core.canvas import Canvas
from stem_core.handles import TaskHandle
from stem_core.producer import Stem
from stem_core.sending import Publish
from stem_core.signature import Signature
from stem_core.tasks import Task
from stem_core.worker import Worker

__all__ = ["StemApp"]


R = TypeVar("R")


class StemApp(Stem):
    """A :class:`Stem` whose tasks run in this process: from ``async with`` (or the first enqueue) until it is closed.

    Tasks given to it keep the Stem they were declared with; that one is pointed at this app's broker,
    backend and encoders meanwhile, so ``add.enqueue(1, 2)`` goes here.
    """

    def __init__(
        self,
        broker: Any,
        *,
        tasks: Iterable[Task[..., Any]] = (),
        worker: Mapping[str, Any] | None = None,
        **arguments: Any,
    ) -> None:
        """:param worker: arguments of :class:`Worker`; its queues are those of the tasks unless given.
        :param arguments: the others of :class:`Stem`.
        """
        super().__init__(broker, tasks=tasks, **arguments)
        self._worker_arguments = dict(worker or {})
        self._worker: Worker | None = None
        self._running: AsyncExitStack | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting = asyncio.Lock()

    @classmethod
    def in_memory(cls, tasks: Iterable[Task[..., Any]] = (), **arguments: Any) -> Self:
        """An app on a memory broker of its own."""
        return cls("memory://", tasks=tasks, **arguments)

    @classmethod
    def from_url(cls, url: str, tasks: Iterable[Task[..., Any]] = (), **arguments: Any) -> Self:
        """An app on the broker at ``url``, and the backend there where the adapter offers one."""
        return cls(url, tasks=tasks, **arguments)

    @property
    def worker(self) -> Worker:
        """The worker of this app, made at first use."""
        if self._worker is None:
            queues = sorted({"default", *(task.options.queue for task in self.tasks.values())})
            self._worker = Worker(self, **{"queues": queues, **self._worker_arguments})
        return self._worker

    @property
    def canvas(self) -> Canvas:
        """Chains, groups and chords of this app's tasks."""
        return Canvas(self)

    async def start(self) -> None:
        """Open the app and start its worker, on this loop. Does nothing when it has been."""
        async with self._starting:
            if not self._runs:
                self._forget_worker()
                self._running, self._loop = await self._started(), asyncio.get_running_loop()

    async def close(self) -> None:
        """Drain the worker and release everything. Calling it again is fine."""
        running = self._running
        if running is not None and self._runs:
            await self.run(lambda _: running.aclose())
        self._running = None
        await super().close()

    def close_sync(self) -> None:
        """:meth:`close` from code without an event loop."""
        running = self._running
        if running is not None and self._runs:
            self.run_sync(lambda _: running.aclose())
        self._running = None
        super().close_sync()

    async def enqueue_call(self, call: Signature[R], *, strict: bool | None = None) -> TaskHandle[R]:
        """:meth:`Stem.enqueue_call`; the first one starts the worker."""
        await self._start_at_first_use()
        return await super().enqueue_call(call, strict=strict)

    async def enqueue_many(
        self, calls: Iterable[Signature[Any]], *, strict: bool | None = None
    ) -> list[TaskHandle[Any]]:
        """:meth:`Stem.enqueue_many`; the first one starts the worker."""
        await self._start_at_first_use()
        return await super().enqueue_many(calls, strict=strict)

    async def publish(self, publishes: list[Publish]) -> None:
        """:meth:`Stem.publish`; the first one starts the worker."""
        await self._start_at_first_use()
        await super().publish(publishes)

    def enqueue_call_sync(self, call: Signature[R], *, strict: bool | None = None) -> TaskHandle[R]:
        """:meth:`enqueue_call` from code without an event loop."""
        self._start_at_first_use_sync()
        return super().enqueue_call_sync(call, strict=strict)

    def enqueue_many_sync(
        self, calls: Iterable[Signature[Any]], *, strict: bool | None = None
    ) -> list[TaskHandle[Any]]:
        """:meth:`enqueue_many` from code without an event loop."""
        self._start_at_first_use_sync()
        return super().enqueue_many_sync(calls, strict=strict)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def _runs(self) -> bool:
        """Whether it was started, on a loop that has not been closed since (by the end of an ``asyncio.run``)."""
        return self._running is not None and self._loop is not None and not self._loop.is_closed()

    async def _start_at_first_use(self) -> None:
        # An on_startup function may enqueue: it must not wait for the start that waits for it.
        if not self._runs and not self._starting.locked():
            await self.start()

    def _start_at_first_use_sync(self) -> None:
        if not self._runs:
            self.run_sync(lambda _: self.start())

    async def _started(self) -> AsyncExitStack:
        async with AsyncExitStack() as stack:
            await self.open()
            for stem in self._others():
                stack.enter_context(stem.pointed_at(self.wiring))
                await stem.open()  # this loop is its home as well: the adapters live here
            await stack.enter_async_context(self.worker)
            stack.callback(self._forget_worker)
            return stack.pop_all()

    def _forget_worker(self) -> None:
        self._worker = None

    def _others(self) -> list[Stem]:
        """The Stems, other than this one, that its tasks were declared with."""
        found: dict[int, Stem] = {}
        for task in self.tasks.values():
            if isinstance(task.stem, Stem) and task.stem is not self:
                found[id(task.stem)] = task.stem
        return list(found.values())
