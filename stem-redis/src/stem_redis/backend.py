"""The backend: statuses, groups, shared state and limits. Keys are documented in ``keys``."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from stem_core.ports.backend import (
    Callback,
    GroupAnswer,
    GroupRecord,
    LimitAnswer,
    Outcome,
    StateEntry,
    StateRead,
)
from stem_core.ports.capabilities import BackendCapabilities
from stem_core.ports.specs import AdapterOptions
from stem_core.status import StatusPage, StatusQuery, StatusUpdate, TaskStatus
from stem_redis.completions import Completions
from stem_redis.connection import Server
from stem_redis.groups import Groups
from stem_redis.keys import Keys
from stem_redis.listing import fetch_statuses, list_statuses
from stem_redis.scripts import SCRIPTS
from stem_redis.wire import Row, life, pack_rows, status_row

__all__ = ["RedisBackend"]

_MOST_UPDATES: Final = 200
_SCAN: Final = 500
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class RedisBackend:
    """Implements ``stem_core.ports.Backend``."""

    def __init__(self, url: str, options: AdapterOptions, capabilities: BackendCapabilities) -> None:
        self.capabilities = capabilities
        self.server = Server(url, options)
        self.keys = Keys(options.namespace)
        self._groups = Groups(self.server, self.keys)
        self._completions = Completions(self.server, self.keys)

    @property
    def server_version(self) -> str | None:
        """The server's name and version once it is open, where the user may ask for it."""
        return self.server.version

    async def open(self) -> None:
        await self.server.open()

    async def close(self) -> None:
        await self._completions.close()
        await self.server.close()

    # statuses

    async def record(self, updates: Sequence[StatusUpdate]) -> Sequence[bool]:
        self.server.check_open()
        if not updates:
            return []
        calls = []
        for first in range(0, len(updates), _MOST_UPDATES):
            parts: list[bytes] = []
            rows: Row = []
            for update in updates[first : first + _MOST_UPDATES]:
                rows += status_row(update, parts)
            calls.append(((), (self.keys.prefix, pack_rows(rows), b"".join(parts))))
        answers = await self.server.run_all(SCRIPTS["record"], calls)
        return [flag == 49 for answer in answers for flag in answer]  # ord("1")

    async def fetch(self, ids: Sequence[str]) -> Sequence[TaskStatus | None]:
        return await fetch_statuses(self.server, self.keys.prefix, ids)

    async def wait(self, id: str, timeout: float) -> TaskStatus | None:
        self.server.check_open()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            # Listen first, then look: what is recorded in between is told.
            told = await self._completions.watch(id)
            try:
                (status,) = await self.fetch([id])
                if status is not None and status.terminal:
                    return status
                async with asyncio.timeout_at(deadline):
                    await told
            except TimeoutError:
                return None
            finally:
                self._completions.unwatch(id, told)

    async def list(self, query: StatusQuery) -> StatusPage:
        return await list_statuses(self.server, self.keys.prefix, query)

    # groups

    async def group_create(
        self,
        id: str,
        members: Sequence[str],
        callback: Sequence[Callback],
        deadline: datetime | None,
        ttl: float,
    ) -> bool:
        return await self._groups.create(id, members, callback, deadline, ttl)

    async def group_add(self, id: str, member: str, outcome: Outcome) -> GroupAnswer:
        return await self._groups.add(id, member, outcome)

    async def group_close(self, id: str, reason: str) -> GroupAnswer:
        return await self._groups.close(id, reason)

    async def group_get(self, id: str, *, outcomes: bool = True) -> GroupRecord | None:
        return await self._groups.get(id, outcomes=outcomes)

    # state

    async def state_read(self, key: str) -> StateRead:
        value, version, seconds, micros = await self.server.run("state_read", (), self.keys.prefix, key)
        now = _EPOCH + timedelta(seconds=int(seconds), microseconds=int(micros))
        return StateRead(value, int(version), now)

    async def state_write(self, key: str, value: bytes, *, expect: int, ttl: float | None) -> int | None:
        version = await self.server.run("state_write", (), self.keys.prefix, key, value, expect, life(ttl))
        return None if version is None else int(version)

    async def state_delete(self, key: str, *, expect: int | None = None) -> bool:
        version = "" if expect is None else expect
        return bool(await self.server.run("state_delete", (), self.keys.prefix, key, version))

    async def state_scan(self, prefix: str) -> Sequence[StateEntry]:
        found: list[StateEntry] = []
        start = f"[{prefix}"
        while start:
            flat, last = await self.server.run("state_scan", (), self.keys.prefix, prefix, start, _SCAN)
            found += [
                StateEntry(key.decode(), value, int(version))
                for key, value, version in zip(flat[::3], flat[1::3], flat[2::3], strict=True)
            ]
            start = f"({last.decode()}" if last else ""
        return found

    # limiter

    async def limit_take(self, key: str, permits: int, rate: float, burst: int) -> LimitAnswer:
        if permits > burst:
            raise ValueError(f"{permits} permits of {key!r} could never be granted: its burst is {burst}")
        interval = f"{1_000_000 / rate:.6f}"
        granted, wait = await self.server.run(
            "limit", (), f"{self.keys.prefix}l:{key}", permits, interval, burst
        )
        return LimitAnswer(bool(granted), wait / 1_000_000)
