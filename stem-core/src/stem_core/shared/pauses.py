"""Queues that are paused: durable, seen by every worker.

State key ``pause:<queue>``: who paused it and why, kept until it is resumed.
"""

from __future__ import annotations

from typing import Final

import msgspec

from stem_core.ports.backend import Backend

__all__ = ["Pause", "Pauses"]

_PREFIX: Final = "pause:"


class Pause(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a queue stands still, as text for people."""

    reason: str = ""


class Pauses:
    """Reads and writes which queues are paused."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def pause(self, queue: str, reason: str = "") -> None:
        """Pause a queue; pausing it again changes the reason."""
        value = msgspec.msgpack.encode(Pause(reason))
        while True:
            current = await self._backend.state_read(_PREFIX + queue)
            if await self._backend.state_write(_PREFIX + queue, value, expect=current.version, ttl=None):
                return

    async def resume(self, queue: str) -> bool:
        """Resume a queue; whether it was paused."""
        return await self._backend.state_delete(_PREFIX + queue)

    async def paused(self) -> dict[str, Pause]:
        """Every paused queue, with the reason."""
        entries = await self._backend.state_scan(_PREFIX)
        return {
            entry.key.removeprefix(_PREFIX): msgspec.msgpack.decode(entry.value, type=Pause)
            for entry in entries
        }
