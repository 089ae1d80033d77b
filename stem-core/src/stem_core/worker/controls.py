"""What a running task may ask of its worker; see ``stem_core.context.Controls``."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from stem_core.envelope import Envelope
from stem_core.errors import StemError
from stem_core.signature import Signature
from stem_core.status import Progress, StatusUpdate, TaskState
from stem_core.worker.leases import LeaseKeeper
from stem_core.worker.outcome import RUNNING_TTL
from stem_core.worker.run import Run

if TYPE_CHECKING:
    from stem_core.handles import TaskHandle

__all__ = ["WorkerControls"]

R = TypeVar("R")


class WorkerControls:
    """Controls of one run. Made for every run, so it holds two references and does nothing."""

    __slots__ = ("_run", "_shared")

    def __init__(self, run: Run, shared: SharedControls) -> None:
        self._run = run
        self._shared = shared

    async def heartbeat(self) -> None:
        await self._shared.leases.extend(self._run, self._run.lease)

    async def extend_lease(self, seconds: float) -> None:
        await self._shared.leases.extend(self._run, seconds)

    async def progress(self, progress: Progress) -> None:
        backend = self._shared.wiring.backend
        if backend is None:
            return
        envelope, delivery = self._run.envelope, self._run.delivery
        await backend.record(
            [
                StatusUpdate(
                    id=envelope.id,
                    state=TaskState.RUNNING,
                    generation=delivery.generation,
                    attempt=delivery.attempt,
                    name=envelope.name,
                    queue=envelope.queue,
                    progress=progress,
                    started_at=self._run.started_at,
                    ttl=self._shared.running_ttl(envelope),
                )
            ]
        )

    async def enqueue(self, call: Signature[Any]) -> TaskHandle[Any]:
        handle: TaskHandle[Any] = await self._shared.stem.enqueue_call(call)
        return handle

    def heartbeat_sync(self) -> None:
        self._shared.wait(self.heartbeat())

    def extend_lease_sync(self, seconds: float) -> None:
        self._shared.wait(self.extend_lease(seconds))

    def progress_sync(self, progress: Progress) -> None:
        self._shared.wait(self.progress(progress))

    def enqueue_sync(self, call: Signature[Any]) -> TaskHandle[Any]:
        handle: TaskHandle[Any] = self._shared.stem.enqueue_call_sync(call)
        return handle


class SharedControls:
    """What the controls of all runs of a worker have in common."""

    def __init__(self, stem: Any, wiring: Any, leases: LeaseKeeper, loop: asyncio.AbstractEventLoop) -> None:
        self.stem = stem
        self.wiring = wiring
        self.leases = leases
        self._loop = loop

    def running_ttl(self, envelope: Envelope) -> float:
        """Seconds to keep the row of a running task."""
        return max(RUNNING_TTL, envelope.result_ttl)

    def wait(self, work: Coroutine[Any, Any, R]) -> R:
        """Do ``work`` on the worker's loop and wait for it on the caller's thread.

        :raises StemError: this is the loop's own thread, which would wait for itself.
        """
        try:
            here: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is self._loop:
            work.close()
            raise StemError(
                "A _sync method of the task's context was called on the event loop; await its twin."
            )
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
