"""Locks of unique tasks, freed after their end is stored. One that is not freed holds nobody up: see ``shared/uniqueness``."""

from __future__ import annotations

import asyncio
import logging

from stem_core.envelope import Envelope
from stem_core.errors import StemError
from stem_core.ports.backend import Backend
from stem_core.shared import uniqueness

__all__ = ["LockReleaser"]

_log = logging.getLogger("stem.worker")


class LockReleaser:
    """Frees locks one after another, beside the work."""

    def __init__(self, backend: Backend | None) -> None:
        self._backend = backend
        self._ended: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    def add(self, envelope: Envelope) -> None:
        """The task has ended for good."""
        if envelope.unique is not None and self._backend is not None:
            self._ended.put_nowait((envelope.unique, envelope.id))

    async def run(self) -> None:
        """Free what comes, until cancelled."""
        while True:
            await self._free(*await self._ended.get())

    async def drain(self) -> None:
        """Free what is left."""
        while not self._ended.empty():
            await self._free(*self._ended.get_nowait())

    async def _free(self, lock: str, id: str) -> None:
        if self._backend is None:
            return
        try:
            await uniqueness.release(self._backend, lock, id)
        except (StemError, OSError) as error:
            _log.warning("The lock of unique task %s was not freed: %s", id, error)
