"""A handle to one task: its status, its result, and how to call it off."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, Generic, Protocol, TypeVar, cast

import msgspec

from stem_core.arguments import convert
from stem_core.clock import seconds
from stem_core.errors import ConfigurationError, StemError, TaskFailed, TaskRevoked, TaskTimeout
from stem_core.names import RESULT_ENCODER_META
from stem_core.options import Adjustment, Duration
from stem_core.ports.backend import Backend
from stem_core.ports.encoder import EncodeContext
from stem_core.publishing import IGNORED_META
from stem_core.shared.revocation import revoke
from stem_core.status import TaskError, TaskResult, TaskState, TaskStatus
from stem_core.wiring import Wiring

__all__ = ["Runs", "TaskHandle", "TaskResult", "decode_result", "result_of"]

R = TypeVar("R")
T = TypeVar("T")

#: The longest single wait asked of a backend; a result without a timeout is waited for again and again.
_LONGEST_WAIT: Final = 3600.0
#: Seconds that looking for the reason of a timeout may take.
_LAST_LOOK: Final = 1.0


class Runs(Protocol):
    """The part of a producer that handles need: work done with its wiring, on its home loop."""

    async def run(self, work: Callable[[Wiring], Awaitable[T]]) -> T: ...
    def run_sync(self, work: Callable[[Wiring], Awaitable[T]]) -> T: ...


class TaskHandle(msgspec.Struct, Generic[R], frozen=True, eq=False, weakref=True):
    """One task, known by its id. ``str(handle)`` is the id.

    ``adjustments``: what was asked for and could not be done as asked. ``deduplicated``: a unique task was
    already there, and this is its handle. ``ignored``: the result is not to be kept, so it is None.
    """

    stem: Runs
    id: str
    result_type: Any = Any
    adjustments: tuple[Adjustment, ...] = ()
    deduplicated: bool = False
    ignored: bool = False

    def __str__(self) -> str:
        return self.id

    def __repr__(self) -> str:
        return f"<TaskHandle {self.id}>"

    async def status(self) -> TaskStatus | None:
        """What is recorded of the task; None when nothing is, or no longer."""
        return await self.stem.run(self._status)

    async def result(self, timeout: Duration | None = None) -> R:
        """The task's result, as soon as it has one.

        :param timeout: seconds to wait at most; None waits for ever.
        :raises TaskFailed: it failed; the error of the process that ran it is in there.
        :raises TaskRevoked: it was cancelled.
        :raises TaskTimeout: neither within ``timeout``.
        """
        status = await self.stem.run(lambda wiring: self._wait(wiring, timeout))
        return cast(R, self._value(status, await self.stem.run(_itself)))

    async def revoke(self, *, terminate: bool = False) -> bool:
        """Call the task off: what waits is never run. Returns whether it is known to be cancelled by now.

        :param terminate: also stop it if it runs.
        """
        return await self.stem.run(lambda wiring: revoke(wiring, self.id, terminate=terminate))

    def status_sync(self) -> TaskStatus | None:
        """:meth:`status` from code without an event loop."""
        return self.stem.run_sync(self._status)

    def result_sync(self, timeout: Duration | None = None) -> R:
        """:meth:`result` from code without an event loop."""
        status = self.stem.run_sync(lambda wiring: self._wait(wiring, timeout))
        return cast(R, self._value(status, self.stem.run_sync(_itself)))

    def revoke_sync(self, *, terminate: bool = False) -> bool:
        """:meth:`revoke` from code without an event loop."""
        return self.stem.run_sync(lambda wiring: revoke(wiring, self.id, terminate=terminate))

    async def _status(self, wiring: Wiring) -> TaskStatus | None:
        (found,) = await _backend(wiring, self.id).fetch([self.id])
        return found

    async def _wait(self, wiring: Wiring, timeout: Duration | None) -> TaskStatus:
        backend = _backend(wiring, self.id)
        left = None if timeout is None else max(0.0, seconds(timeout))
        while True:
            found = await backend.wait(self.id, _LONGEST_WAIT if left is None else left)
            if found is not None:
                return found
            if left is not None:
                break
        status, where = await _last_look(backend, self.id)
        if status is not None and status.terminal:  # just now
            return status
        raise TaskTimeout(f"Task {self.id} has not finished within {left:g} s: {where}")

    def _value(self, status: TaskStatus, wiring: Wiring) -> Any:
        if status.state is TaskState.FAILED:
            error = status.error or TaskError("unknown", "no error was recorded")
            raise TaskFailed(self.id, error.type, error.message, error.traceback)
        if status.state is TaskState.CANCELLED:
            raise TaskRevoked(f"Task {self.id} was cancelled: {status.reason or 'no reason was given'}.")
        if self.ignored or status.meta.get(IGNORED_META):
            return None
        return decode_result(wiring, status, self.result_type)


def decode_result(wiring: Wiring, status: TaskStatus, result_type: Any = Any) -> Any:
    """The value in a status, by the encoder it is stamped with, as ``result_type``; None when none is stored.

    :raises DecodeError: the encoder is not installed here, or the value does not fit ``result_type``.
    """
    if status.payload is None:
        return None
    chain = status.encoder or status.meta.get(RESULT_ENCODER_META) or wiring.encoders.default_result
    context = EncodeContext(purpose="result", namespace=wiring.namespace, id=status.id, chain=chain)
    return convert(wiring.encoders.decode(chain, status.payload, context), result_type, "result")


def result_of(wiring: Wiring, status: TaskStatus, result_type: Any = Any) -> TaskResult[Any]:
    """How a finished task ended, as a value."""
    value = decode_result(wiring, status, result_type) if status.state is TaskState.SUCCEEDED else None
    return TaskResult(id=status.id, state=status.state, value=value, error=status.error)


def _backend(wiring: Wiring, id: str) -> Backend:
    if wiring.backend is None:
        raise ConfigurationError(
            f"What became of task {id} is not known: this Stem has no backend. Give one: Stem(..., backend=URL)."
        )
    return wiring.backend


async def _last_look(backend: Backend, id: str) -> tuple[TaskStatus | None, str]:
    """The status of a task that was waited for in vain, and in words what keeps it."""
    try:
        async with asyncio.timeout(_LAST_LOOK):
            (status,) = await backend.fetch([id])
    except (StemError, OSError, TimeoutError):
        return None, "it still may."
    if status is None:
        return None, "nothing is recorded of it, or no longer; is this its producer's backend and namespace?"
    if status.state is TaskState.QUEUED:
        return status, f"it is queued; does a worker consume {status.queue!r}?"
    return status, f"it is {status.state.value}."


async def _itself(wiring: Wiring) -> Wiring:
    return wiring
