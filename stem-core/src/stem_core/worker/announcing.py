"""``running`` rows, many at a time, and none for a run that has ended before it was its turn."""

from __future__ import annotations

import asyncio
import logging

from stem_core.errors import StemError
from stem_core.ports.backend import Backend
from stem_core.worker import outcome
from stem_core.worker.run import Run

__all__ = ["Announcer"]

_log = logging.getLogger("stem.worker")
#: Seconds after which a run is worth a row of its own.
_PATIENCE = 0.01


class Announcer:
    """Writes that runs have begun. Nothing waits for it and nothing fails with it."""

    def __init__(self, backend: Backend | None) -> None:
        self._backend = backend
        self._begun: list[Run] = []
        self._wake = asyncio.Event()

    def begun(self, run: Run) -> None:
        """``run`` has begun."""
        if self._backend is None:
            return
        self._begun.append(run)
        if len(self._begun) == 1:
            self._wake.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await asyncio.sleep(_PATIENCE)
            begun, self._begun = self._begun, []
            rows = [
                outcome.running(run.envelope, run.delivery, run.started_at)
                for run in begun
                if not run.ended and run.started_at is not None
            ]
            if not rows or self._backend is None:
                continue
            try:
                await self._backend.record(rows)
            except (StemError, OSError, TimeoutError) as error:
                _log.warning("Recording %d tasks as running failed: %s", len(rows), error)
