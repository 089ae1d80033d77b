"""What submitting a canvas gives back: handles to results, progress and cancellation."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, Generic, Literal, Protocol, TypeVar, cast

import msgspec

from stem_core.clock import seconds
from stem_core.errors import ConfigurationError, StemError, TaskTimeout
from stem_core.handles import Runs, TaskHandle, result_of
from stem_core.options import Adjustment, Duration
from stem_core.ports.backend import Backend
from stem_core.status import TaskResult, TaskState, TaskStatus
from stem_core.wiring import Wiring

__all__ = ["BatchStatus", "GraphHandle", "GroupHandle"]

R = TypeVar("R")

#: Statuses fetched in one call while results are awaited.
CHUNK: Final = 500
#: Members waited for at a time; the store wakes us for any of them.
WATCHED: Final = 32
#: Seconds between looks at members that are not among the watched.
LOOK_EVERY: Final = 0.5


class Submitter(Protocol):
    """What handles need of the canvas that made them."""

    @property
    def runs(self) -> Runs: ...
    async def cancel(self, id: str, *, reason: str = ...) -> int: ...
    async def inspect_batch(self, id: str) -> BatchStatus: ...


class BatchStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How far a group is; members that are chains count by their last task."""

    id: str
    state: Literal["pending", "running", "succeeded", "failed", "cancelled", "partial"]
    total: int
    succeeded: int
    failed: tuple[str, ...]
    cancelled: tuple[str, ...]
    pending: tuple[str, ...]

    @property
    def terminal(self) -> bool:
        return not self.pending


class GraphHandle(Generic[R]):
    """A chain or chord: its result is that of its last task."""

    def __init__(
        self, canvas: Submitter, id: str, last: TaskHandle[R], adjustments: Sequence[Adjustment] = ()
    ) -> None:
        self._canvas = canvas
        #: What was asked for its tasks and could not be done as asked, each once.
        self.adjustments = tuple(adjustments)
        #: The graph's id, for ``canvas.cancel``.
        self.id = id
        #: The handle of the task that holds the result.
        self.task = last

    async def result(self, timeout: Duration | None = None) -> R:
        """The last task's result.

        :raises TaskFailed: a task of the graph failed; the message names it.
        :raises TaskTimeout: no result after ``timeout`` seconds.
        """
        return await self.task.result(timeout=timeout)

    async def status(self) -> TaskStatus | None:
        """The last task's status; None before it was published."""
        return await self.task.status()

    async def cancel(self, reason: str = "cancelled") -> int:
        """Cancel what has not ended; answers how many tasks were recorded ``cancelled``."""
        return await self._canvas.cancel(self.id, reason=reason)

    def __str__(self) -> str:
        return self.id


class GroupHandle(Generic[R]):
    """Members side by side: results as each finishes, or all in order."""

    def __init__(
        self,
        canvas: Submitter,
        id: str,
        members: Sequence[str],
        types: Mapping[str, Any],
        adjustments: Sequence[Adjustment] = (),
    ) -> None:
        self._canvas = canvas
        #: What was asked for its tasks and could not be done as asked, each once.
        self.adjustments = tuple(adjustments)
        #: The group's id, for ``canvas.inspect_batch`` and ``canvas.cancel``.
        self.id = id
        #: The task that holds each member's result, in the body's order.
        self.members = tuple(members)
        self._types = types

    def __str__(self) -> str:
        return self.id

    async def results(self, timeout: Duration | None = None) -> AsyncIterator[TaskResult[R]]:
        """Each member's result as it finishes, failed and cancelled ones too.

        :raises TaskTimeout: some are missing after ``timeout`` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + seconds(timeout)
        pending = dict.fromkeys(self.members)
        while pending:
            done = await self._canvas.runs.run(partial(self._finished, list(pending)))
            for each in done:
                del pending[each.id]
                yield each
            if pending and not done:
                patience = self._patience(deadline, len(pending))
                await self._canvas.runs.run(partial(_wait, list(pending)[:WATCHED], patience))

    async def result(self, timeout: Duration | None = None) -> list[R]:
        """All results in the body's order.

        :raises TaskFailed: a member failed; the message names it.
        :raises TaskRevoked: a member was cancelled.
        :raises TaskTimeout: some are missing after ``timeout`` seconds.
        """
        found: dict[str, TaskResult[R]] = {}
        async for each in self.results(timeout):
            found[each.id] = each.checked()
        return [cast(R, found[member].value) for member in self.members]

    async def inspect(self) -> BatchStatus:
        """How far it is."""
        return await self._canvas.inspect_batch(self.id)

    async def cancel(self, reason: str = "cancelled") -> int:
        """Cancel what has not ended; answers how many tasks were recorded ``cancelled``."""
        return await self._canvas.cancel(self.id, reason=reason)

    async def _finished(self, ids: Sequence[str], wiring: Wiring) -> list[TaskResult[R]]:
        backend = backend_of(wiring)
        for start in range(0, len(ids), CHUNK):
            statuses = await backend.fetch(ids[start : start + CHUNK])
            done = [each for each in statuses if each is not None and each.terminal]
            if done:
                return [result_of(wiring, each, self._types.get(each.id, Any)) for each in done]
        return []

    def _patience(self, deadline: float | None, pending: int) -> float:
        most = LOOK_EVERY if pending > WATCHED else 60.0
        if deadline is None:
            return most
        left = deadline - time.monotonic()
        if left <= 0:
            raise TaskTimeout(
                f"{pending} of {len(self.members)} members of {self.id} have not finished in time"
            )
        return min(left, most)


async def _wait(ids: Sequence[str], patience: float, wiring: Wiring) -> None:
    """Until one of ``ids`` is terminal, or the patience is over."""
    backend = backend_of(wiring)
    waits = [asyncio.ensure_future(backend.wait(id, patience)) for id in ids]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        ended = await asyncio.gather(*waits, return_exceptions=True)
    for each in ended:
        if isinstance(each, StemError):
            raise each


def backend_of(wiring: Wiring) -> Backend:
    """The backend, which canvas needs for its groups.

    :raises ConfigurationError: there is none, or it keeps no groups.
    """
    backend = wiring.backend
    if backend is None or not backend.capabilities.groups:
        raise ConfigurationError(
            "Canvas counts its tasks in the backend's groups, and this Stem has no backend that declares them; give "
            "it one: Stem(..., backend='redis://...')"
        )
    return backend


def batch_status(id: str, members: Sequence[str], states: Mapping[str, TaskState]) -> BatchStatus:
    """Counts of a group from the states of its members that have ended."""
    failed = tuple(each for each in members if states.get(each) is TaskState.FAILED)
    cancelled = tuple(each for each in members if states.get(each) is TaskState.CANCELLED)
    pending = tuple(each for each in members if each not in states)
    succeeded = len(members) - len(failed) - len(cancelled) - len(pending)
    state: Literal["pending", "running", "succeeded", "failed", "cancelled", "partial"]
    if pending:
        state = "running" if len(pending) < len(members) else "pending"
    elif succeeded == len(members):
        state = "succeeded"
    elif succeeded:
        state = "partial"
    else:
        state = "failed" if failed else "cancelled"
    return BatchStatus(
        id=id,
        state=state,
        total=len(members),
        succeeded=succeeded,
        failed=failed,
        cancelled=cancelled,
        pending=pending,
    )
