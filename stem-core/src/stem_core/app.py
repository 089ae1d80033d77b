""":class:`StemApp`: a producer and a worker in one object, for small applications and for tests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

from stem_core.producer import Stem
from stem_core.tasks import Task
from stem_core.worker import Worker

__all__ = ["StemApp"]


class StemApp(Stem):
    """A :class:`Stem` whose tasks run in this process, while ``async with`` holds it open.

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
        self._inside: list[AsyncExitStack] = []

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

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await super().__aenter__()
            stack.push_async_exit(super().__aexit__)
            for stem in self._others():
                stack.enter_context(stem.pointed_at(self.wiring))
                await stem.open()  # this loop is its home as well: the adapters live here
            await stack.enter_async_context(self.worker)
            self._inside.append(stack.pop_all())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._inside.pop().__aexit__(kind, error, trace)
        self._worker = None

    def _others(self) -> list[Stem]:
        """The Stems, other than this one, that its tasks were declared with."""
        found: dict[int, Stem] = {}
        for task in self.tasks.values():
            if isinstance(task.stem, Stem) and task.stem is not self:
                found[id(task.stem)] = task.stem
        return list(found.values())
