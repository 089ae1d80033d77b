"""Which workers are alive: each says so in the state, and is forgotten when it stops saying so.

State key ``worker:<id>``: a :class:`Heartbeat`, living :data:`TTL` seconds, rewritten every third of it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec

from stem_core.ports.backend import Backend

__all__ = ["TTL", "Heartbeat", "Heartbeats"]

TTL: Final = 30.0
_PREFIX: Final = "worker:"


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a worker says of itself. ``stats`` is plain data: counters since its start."""

    id: str
    host: str
    pid: int
    queues: tuple[str, ...]
    concurrency: int
    started_at: datetime
    in_flight: int = 0
    stats: dict[str, Any] = msgspec.field(default_factory=dict)


class Heartbeats:
    """Reads and writes heartbeats."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        #: What was written last, so that the next beat is one round trip.
        self._versions: dict[str, int] = {}

    async def beat(self, heartbeat: Heartbeat) -> None:
        """Say that this worker is alive."""
        key, value = _PREFIX + heartbeat.id, msgspec.msgpack.encode(heartbeat)
        version = self._versions.get(heartbeat.id, 0)
        written = await self._backend.state_write(key, value, expect=version, ttl=TTL)
        if written is None:  # the last one expired, or was another process's of the same name
            current = await self._backend.state_read(key)
            written = await self._backend.state_write(key, value, expect=current.version, ttl=TTL)
        self._versions[heartbeat.id] = written or 0

    async def forget(self, id: str) -> None:
        """This worker has stopped."""
        await self._backend.state_delete(_PREFIX + id)

    async def alive(self) -> list[Heartbeat]:
        """Every worker that lives, by id."""
        entries = await self._backend.state_scan(_PREFIX)
        found = [msgspec.msgpack.decode(entry.value, type=Heartbeat) for entry in entries]
        return sorted(found, key=lambda each: each.id)
