""":func:`fake_context`: a task's context without a task."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from stem_core.context import TaskContext
from stem_core.envelope import new_id
from stem_core.errors import StemError
from stem_core.handles import TaskHandle
from stem_core.signature import Signature
from stem_core.status import Progress
from stem_core.wiring import Wiring

__all__ = ["FakeContext", "Recorded", "fake_context"]

T = TypeVar("T")


@dataclass(slots=True)
class Recorded:
    """What a handler asked of its context."""

    heartbeats: int = 0
    leases: list[float] = field(default_factory=list)
    """The seconds of each ``extend_lease``."""
    progress: list[Progress] = field(default_factory=list)
    enqueued: list[Signature[Any]] = field(default_factory=list)


class FakeContext(TaskContext):
    """A context whose ``recorded`` tells what was asked of it."""

    __slots__ = ("recorded",)

    def __init__(self, recorded: Recorded, **fields: Any) -> None:
        super().__init__(controls=_Controls(recorded), **fields)
        self.recorded = recorded


def fake_context(
    *,
    id: str | None = None,
    name: str = "test.task",
    queue: str = "default",
    attempt: int = 0,
    generation: int = 0,
    headers: Mapping[str, str] | None = None,
    meta: Mapping[str, Any] | None = None,
    state: dict[str, Any] | None = None,
) -> FakeContext:
    """A ``TaskContext`` to call a handler with: ``report(fake_context(attempt=2), payload)``."""
    return FakeContext(
        Recorded(),
        id=id or new_id(),
        name=name,
        queue=queue,
        attempt=attempt,
        generation=generation,
        headers=headers,
        meta=meta,
        state=state,
    )


class _Controls:
    """Records; nothing is renewed or published."""

    def __init__(self, recorded: Recorded) -> None:
        self._recorded = recorded

    async def heartbeat(self) -> None:
        self.heartbeat_sync()

    async def extend_lease(self, seconds: float) -> None:
        self.extend_lease_sync(seconds)

    async def progress(self, progress: Progress) -> None:
        self.progress_sync(progress)

    async def enqueue(self, call: Signature[Any]) -> TaskHandle[Any]:
        return self.enqueue_sync(call)

    def heartbeat_sync(self) -> None:
        self._recorded.heartbeats += 1

    def extend_lease_sync(self, seconds: float) -> None:
        self._recorded.leases.append(seconds)

    def progress_sync(self, progress: Progress) -> None:
        self._recorded.progress.append(progress)

    def enqueue_sync(self, call: Signature[Any]) -> TaskHandle[Any]:
        self._recorded.enqueued.append(call)
        return TaskHandle(_Nowhere(), new_id())


class _Nowhere:
    """What a handle of a fake context leads to."""

    async def run(self, work: Callable[[Wiring], Awaitable[T]]) -> T:
        raise StemError(_WHY)

    def run_sync(self, work: Callable[[Wiring], Awaitable[T]]) -> T:
        raise StemError(_WHY)


_WHY = (
    "This handle came from fake_context(): the task was recorded and published nowhere, so it has no status. "
    "Look at context.recorded.enqueued, or run the task with run_inline(stem)."
)
