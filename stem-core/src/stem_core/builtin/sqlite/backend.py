"""The SQLite backend: the backend port on a :class:`Session`."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from datetime import datetime

from stem_core.builtin.limits import check_limit
from stem_core.builtin.sqlite import groups, shared, statuses
from stem_core.builtin.sqlite.session import Session
from stem_core.builtin.waiters import Waiter
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

__all__ = ["SqliteBackend"]


class SqliteBackend:
    """``sqlite:///relative.db`` and ``sqlite:////absolute.db``."""

    server_version = f"sqlite {sqlite3.sqlite_version}"
    """For reports."""

    def __init__(self, url: str, options: AdapterOptions, capabilities: BackendCapabilities) -> None:
        self.capabilities = capabilities
        self.session = Session(url, options, "backend")

    async def open(self) -> None:
        await self.session.open()

    async def close(self) -> None:
        await self.session.close()

    async def record(self, updates: Sequence[StatusUpdate]) -> Sequence[bool]:
        return await self.session.write(lambda unit: statuses.record(unit, self.session.ns, updates))

    async def fetch(self, ids: Sequence[str]) -> Sequence[TaskStatus | None]:
        return await self.session.read(lambda unit: statuses.fetch(unit, self.session.ns, ids))

    async def wait(self, id: str, timeout: float) -> TaskStatus | None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        database = self.session.database
        key = (self.session.ns, id)
        while True:
            waiter = Waiter()
            with database.lock:
                database.for_results.add(key, waiter)
            try:
                (status,) = await self.fetch((id,))
                if status is not None and status.terminal:
                    return status
                patience = deadline - loop.time()
                if patience <= 0:
                    return None
                database.watch()
                await waiter.wait(patience)
            finally:
                with database.lock:
                    database.for_results.discard(key, waiter)

    async def list(self, query: StatusQuery) -> StatusPage:
        return await self.session.read(lambda unit: statuses.page(unit, self.session.ns, query))

    # groups

    async def group_create(
        self,
        id: str,
        members: Sequence[str],
        callback: Sequence[Callback],
        deadline: datetime | None,
        ttl: float,
    ) -> bool:
        return await self.session.write(
            lambda unit: groups.create(unit, self.session.ns, id, members, callback, deadline, ttl)
        )

    async def group_add(self, id: str, member: str, outcome: Outcome) -> GroupAnswer:
        return await self.session.write(lambda unit: groups.add(unit, self.session.ns, id, member, outcome))

    async def group_close(self, id: str, reason: str) -> GroupAnswer:
        return await self.session.write(lambda unit: groups.close(unit, self.session.ns, id, reason))

    async def group_get(self, id: str, *, outcomes: bool = True) -> GroupRecord | None:
        return await self.session.read(lambda unit: groups.get(unit, self.session.ns, id, outcomes=outcomes))

    # state

    async def state_read(self, key: str) -> StateRead:
        return await self.session.read(lambda unit: shared.read(unit, self.session.ns, key))

    async def state_write(self, key: str, value: bytes, *, expect: int, ttl: float | None) -> int | None:
        return await self.session.write(
            lambda unit: shared.write(unit, self.session.ns, key, value, expect, ttl)
        )

    async def state_delete(self, key: str, *, expect: int | None = None) -> bool:
        return await self.session.write(lambda unit: shared.delete(unit, self.session.ns, key, expect))

    async def state_scan(self, prefix: str) -> Sequence[StateEntry]:
        return await self.session.read(lambda unit: shared.scan(unit, self.session.ns, prefix))

    # limiter

    async def limit_take(self, key: str, permits: int, rate: float, burst: int) -> LimitAnswer:
        check_limit(permits, rate, burst)
        return await self.session.write(
            lambda unit: shared.take(unit, self.session.ns, key, permits, rate, burst), durable=False
        )
