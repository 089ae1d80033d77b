"""The result backend: statuses, groups, shared state and limits, each statement on the server's clock."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from datetime import datetime
from functools import partial

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
from stem_postgres import groups, limiter, listing, state, statuses
from stem_postgres.arrays import Texts
from stem_postgres.connection import Database
from stem_postgres.identity import Identity, prepare
from stem_postgres.janitor import Janitor
from stem_postgres.waiters import Waiters

__all__ = ["PostgresBackend"]


class PostgresBackend:
    """Implements ``stem_core.ports.backend.Backend``. Used from the event loop that opened it."""

    def __init__(self, url: str, options: AdapterOptions, capabilities: BackendCapabilities) -> None:
        self.capabilities = capabilities
        self.database = Database(url, options)
        self.identity: Identity | None = None
        self.waiters = Waiters(self.database)
        self._namespace = options.namespace
        self._janitor = Janitor(self.database, (statuses.PRUNE, groups.PRUNE, state.PRUNE, limiter.PRUNE))

    async def open(self) -> None:
        """Connect, and migrate the schema when it is missing or old.

        :raises AdapterError: unreachable within ``connect_timeout``.
        :raises ConfigurationError: the schema is missing or old and may not be changed from here.
        """
        self.identity = await self.database.open(partial(prepare, self.database))
        self._janitor.start()

    @property
    def server_version(self) -> str | None:
        """As "postgresql 18.0"; None before it was open."""
        return self.database.server_version

    async def close(self) -> None:
        """Release everything; again is fine. Waits that run end with an error."""
        if self.database.closed:
            return
        await self.waiters.close()
        await self._janitor.close()
        await self.database.close()

    async def clean(self) -> int:
        """Remove what has expired now, instead of within some minutes; how many rows."""
        return await self._janitor.clean()

    # statuses

    async def record(self, updates: Sequence[StatusUpdate]) -> builtins.list[bool]:
        """Apply each update in order, in one statement unless an id comes twice."""
        answers = [False] * len(updates)
        for wave in statuses.waves(updates):
            chosen = [updates[position] for position in wave]
            plain, columns = statuses.status_columns("u_", chosen)
            rows = await self.database.run(statuses.record(plain), {"namespace": self._namespace} | columns)
            accepted = {row[0] for row in rows}
            for position in wave:
                answers[position] = updates[position].id in accepted
        pairs = zip(updates, answers, strict=True)
        self.waiters.announce(
            update.id for update, accepted in pairs if accepted and update.rank == RANK_TERMINAL
        )
        return answers

    async def fetch(self, ids: Sequence[str]) -> builtins.list[TaskStatus | None]:
        """The status of each id, or None."""
        if not ids:
            return []
        rows = await self.database.run(
            statuses.FETCH, {"namespace": self._namespace, "ids": Texts(sorted(set(ids)))}
        )
        found = {status.id: status for status in map(statuses.status_of, rows)}
        return [found.get(id) for id in ids]

    async def wait(self, id: str, timeout: float) -> TaskStatus | None:
        """The terminal status as soon as it is announced; None after ``timeout`` seconds."""
        return await self.waiters.wait(id, timeout)

    async def list(self, query: StatusQuery) -> StatusPage:
        """What matches, newest first."""
        return await listing.page(self.database, query)

    # groups

    async def group_create(
        self,
        id: str,
        members: Sequence[str],
        callback: Sequence[Callback],
        deadline: datetime | None,
        ttl: float,
    ) -> bool:
        """Open a group; False when ``id`` exists."""
        return await self.database.transact(
            lambda: groups.create(id, members, callback, deadline, ttl, self._namespace)
        )

    async def group_add(self, id: str, member: str, outcome: Outcome) -> GroupAnswer:
        """Count ``outcome`` of ``member`` once."""
        return await self.database.transact(lambda: groups.add(id, member, outcome, self._namespace))

    async def group_close(self, id: str, reason: str) -> GroupAnswer:
        """Complete an open group from outside."""
        return await self.database.transact(lambda: groups.close(id, reason, self._namespace))

    async def group_get(self, id: str, *, outcomes: bool = True) -> GroupRecord | None:
        """The group, or None."""
        return await self.database.transact(lambda: groups.get(id, outcomes, self._namespace))

    # state and limits

    async def state_read(self, key: str) -> StateRead:
        """The value and version of ``key``, and the store's clock."""
        return await state.read(self.database, key)

    async def state_write(self, key: str, value: bytes, *, expect: int, ttl: float | None) -> int | None:
        """Set ``key`` if its version is ``expect``."""
        return await state.write(self.database, key, value, expect, ttl)

    async def state_delete(self, key: str, *, expect: int | None = None) -> bool:
        """Remove ``key``, if ``expect`` is None or its version."""
        return await state.delete(self.database, key, expect)

    async def state_scan(self, prefix: str) -> Sequence[StateEntry]:
        """Every key that starts with ``prefix``."""
        return await state.scan(self.database, prefix)

    async def limit_take(self, key: str, permits: int, rate: float, burst: int) -> LimitAnswer:
        """Take ``permits`` or none.

        :raises ValueError: ``permits > burst``: it could never be granted.
        """
        if permits > burst:
            raise ValueError(f"{permits} permits of a bucket that holds {burst}: it could never grant them")
        return await limiter.take(self.database, key, permits, rate, burst)
