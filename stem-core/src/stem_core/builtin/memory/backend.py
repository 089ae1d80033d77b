"""The memory backend: the backend port on a :class:`Store`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime

from stem_core.builtin.limits import check_limit
from stem_core.builtin.memory.groups import Group
from stem_core.builtin.memory.store import Store, open_store
from stem_core.builtin.waiters import Waiter
from stem_core.errors import AdapterError
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
from stem_core.status import RANK_TERMINAL, StatusPage, StatusQuery, StatusUpdate, TaskStatus

__all__ = ["MemoryBackend"]


class MemoryBackend:
    """``memory://`` and ``memory://name``. Usable from every thread and event loop."""

    def __init__(self, url: str, options: AdapterOptions, capabilities: BackendCapabilities) -> None:
        self.capabilities = capabilities
        self.store: Store = open_store(url, options)
        self._url = url
        self._is_open = False

    async def open(self) -> None:
        self._is_open = True

    async def close(self) -> None:
        self._is_open = False
        with self.store.lock:
            self.store.for_results.wake_all()

    async def record(self, updates: Sequence[StatusUpdate]) -> Sequence[bool]:
        self._check_open()
        store = self.store
        with store.lock:
            now = store.clock.time()
            recorded = [store.records.record(update, now) for update in updates]
            for update in updates:
                if update.rank == RANK_TERMINAL:
                    store.for_results.wake(update.id)
        return recorded

    async def fetch(self, ids: Sequence[str]) -> Sequence[TaskStatus | None]:
        self._check_open()
        with self.store.lock:
            now = self.store.clock.time()
            return [self.store.records.fetch(id, now) for id in ids]

    async def wait(self, id: str, timeout: float) -> TaskStatus | None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            with self.store.lock:
                self._check_open()
                status = self.store.records.fetch(id, self.store.clock.time())
                if status is not None and status.terminal:
                    return status
                patience = deadline - loop.time()
                if patience <= 0:
                    return None
                waiter = Waiter()
                self.store.for_results.add(id, waiter)
            try:
                await waiter.wait(patience)
            finally:
                with self.store.lock:
                    self.store.for_results.discard(id, waiter)

    async def list(self, query: StatusQuery) -> StatusPage:
        self._check_open()
        with self.store.lock:
            return self.store.records.page(query, self.store.clock.time())

    # groups

    async def group_create(
        self,
        id: str,
        members: Sequence[str],
        callback: Sequence[Callback],
        deadline: datetime | None,
        ttl: float,
    ) -> bool:
        self._check_open()
        group = Group(id, tuple(members), tuple(callback), deadline, ttl)
        with self.store.lock:
            return self.store.records.group_create(group, self.store.clock.time())

    async def group_add(self, id: str, member: str, outcome: Outcome) -> GroupAnswer:
        self._check_open()
        with self.store.lock:
            return self.store.records.group_add(id, member, outcome, self.store.clock.time())

    async def group_close(self, id: str, reason: str) -> GroupAnswer:
        self._check_open()
        with self.store.lock:
            return self.store.records.group_close(id, reason, self.store.clock.time())

    async def group_get(self, id: str, *, outcomes: bool = True) -> GroupRecord | None:
        self._check_open()
        with self.store.lock:
            return self.store.records.group_get(id, outcomes, self.store.clock.time())

    # state

    async def state_read(self, key: str) -> StateRead:
        self._check_open()
        with self.store.lock:
            return self.store.records.state_read(key, self.store.clock.time())

    async def state_write(self, key: str, value: bytes, *, expect: int, ttl: float | None) -> int | None:
        self._check_open()
        with self.store.lock:
            return self.store.records.state_write(key, value, expect, ttl, self.store.clock.time())

    async def state_delete(self, key: str, *, expect: int | None = None) -> bool:
        self._check_open()
        with self.store.lock:
            return self.store.records.state_delete(key, expect, self.store.clock.time())

    async def state_scan(self, prefix: str) -> Sequence[StateEntry]:
        self._check_open()
        with self.store.lock:
            return self.store.records.state_scan(prefix, self.store.clock.time())

    # limiter

    async def limit_take(self, key: str, permits: int, rate: float, burst: int) -> LimitAnswer:
        self._check_open()
        check_limit(permits, rate, burst)
        with self.store.lock:
            return self.store.records.limit_take(key, permits, rate, burst, self.store.clock.time())

    def _check_open(self) -> None:
        if not self._is_open:
            raise AdapterError(f"The backend {self._url!r} is not open; await its open() first")
