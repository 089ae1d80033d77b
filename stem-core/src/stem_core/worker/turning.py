"""A child's two threads: an event loop that turns all its life, and the main one for sync handlers.

Resources of ``on_startup`` live on the loop, so it must turn between tasks too. Sync handlers run in the main thread:
nothing runs a loop there, and only there can a signal reach them.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from stem_core.worker.threads import ThreadJob

__all__ = ["TurningLoop"]

T = TypeVar("T")


class TurningLoop:
    """A loop in a thread. Belongs to the thread that made it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._jobs: queue.SimpleQueue[ThreadJob | None] = queue.SimpleQueue()
        threading.Thread(target=self._turn, name="stem-loop", daemon=True).start()

    def run(self, work: Awaitable[T]) -> T:
        """``work`` done on the loop; this thread meanwhile does what it asks for with :meth:`here`."""
        future = asyncio.run_coroutine_threadsafe(_outcome(work), self._loop)
        future.add_done_callback(lambda _: self._jobs.put(None))
        while (job := self._jobs.get()) is not None:
            job.run()
        value, error = future.result()
        if error is not None:
            raise error
        return value  # type: ignore[return-value]

    async def here(self, call: Callable[[], T]) -> T:
        """``call`` done in the thread that waits in :meth:`run`, in the context variables of the caller."""
        job = ThreadJob(call, _nothing)
        self._jobs.put(job)
        value: T = await job.future
        return value

    def _turn(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()


async def _outcome(work: Awaitable[T]) -> tuple[T | None, BaseException | None]:
    """As a value, since a SystemExit that leaves a task ends the loop."""
    try:
        return await work, None
    except BaseException as error:  # noqa: BLE001 - raised where it is waited for
        return None, error


def _nothing() -> Any:
    """A job's start is nobody's business here."""
