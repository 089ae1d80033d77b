"""A backend under test, with sync methods and the habits of the laws' tests."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from stem_core.clock import instant
from stem_core.contracts.driver import Driver
from stem_core.contracts.laws import check
from stem_core.contracts.pace import Pace
from stem_core.ports.backend import (
    Backend,
    Callback,
    GroupAnswer,
    GroupRecord,
    LimitAnswer,
    Outcome,
    StateEntry,
    StateRead,
)
from stem_core.ports.specs import BackendSpec
from stem_core.status import StatusPage, StatusQuery, StatusUpdate, TaskStatus

__all__ = ["BackendLab", "Desk"]


class Desk:
    """One client of a backend: the port's methods, sync."""

    def __init__(self, driver: Driver, backend: Backend) -> None:
        self.driver = driver
        self.backend = backend
        self.when = driver.now()
        """When the last call happened."""

    def _do(self, work: Any) -> Any:
        answer, self.when = self.driver.timed(work)
        return answer

    def record(self, *updates: StatusUpdate) -> list[bool]:
        answers = list(self._do(self.backend.record(updates)))
        check(len(answers) == len(updates), 20, f"{len(updates)} recorded, {len(answers)} answers")
        return answers

    def fetch(self, *ids: str) -> list[TaskStatus | None]:
        answers = list(self._do(self.backend.fetch(ids)))
        check(len(answers) == len(ids), 21, f"{len(ids)} fetched, {len(answers)} answers")
        return answers

    def one(self, id: str) -> TaskStatus | None:
        return self.fetch(id)[0]

    def wait(self, id: str, timeout: float) -> TaskStatus | None:
        answer: TaskStatus | None = self._do(self.backend.wait(id, timeout))
        return answer

    def page(self, query: StatusQuery) -> StatusPage:
        answer: StatusPage = self._do(self.backend.list(query))
        return answer

    def listed(self, **filters: Any) -> list[TaskStatus]:
        """Everything that matches, over all pages."""
        found: list[TaskStatus] = []
        cursor: str | None = None
        while True:
            page = self.page(StatusQuery(cursor=cursor, **filters))
            limit = filters.get("limit", 100)
            check(len(page.items) <= limit, 27, f"list(limit={limit}) gave {len(page.items)}")
            found += page.items
            if (cursor := page.cursor) is None:
                return found

    def group_create(
        self,
        id: str,
        members: Sequence[str],
        callback: Sequence[Callback] = (),
        *,
        deadline: datetime | None = None,
        ttl: float = 3600.0,
    ) -> bool:
        return bool(self._do(self.backend.group_create(id, members, callback, deadline, ttl)))

    def group_add(self, id: str, member: str, outcome: Outcome) -> GroupAnswer:
        answer: GroupAnswer = self._do(self.backend.group_add(id, member, outcome))
        return answer

    def group_close(self, id: str, reason: str) -> GroupAnswer:
        answer: GroupAnswer = self._do(self.backend.group_close(id, reason))
        return answer

    def group_get(self, id: str, *, outcomes: bool = True) -> GroupRecord | None:
        answer: GroupRecord | None = self._do(self.backend.group_get(id, outcomes=outcomes))
        return answer

    def state_read(self, key: str) -> StateRead:
        answer: StateRead = self._do(self.backend.state_read(key))
        return answer

    def state_write(self, key: str, value: bytes, *, expect: int, ttl: float | None = None) -> int | None:
        answer: int | None = self._do(self.backend.state_write(key, value, expect=expect, ttl=ttl))
        return answer

    def state_delete(self, key: str, *, expect: int | None = None) -> bool:
        return bool(self._do(self.backend.state_delete(key, expect=expect)))

    def state_scan(self, prefix: str) -> list[StateEntry]:
        return list(self._do(self.backend.state_scan(prefix)))

    def limit_take(self, key: str, permits: int, rate: float, burst: int) -> LimitAnswer:
        answer: LimitAnswer = self._do(self.backend.limit_take(key, permits, rate, burst))
        return answer


class BackendLab:
    """A driver, a spec and a URL: makes clients of one namespace."""

    def __init__(self, driver: Driver, spec: BackendSpec, url: str, pace: Pace) -> None:
        self.driver = driver
        self.spec = spec
        self.caps = spec.capabilities
        self.url = url
        self.pace = pace

    def desk(self, *, namespace: str | None = None) -> Desk:
        """Another client, open."""
        return Desk(self.driver, self.driver.backend(self.spec, self.url, namespace=namespace))

    def at(self, seconds: float) -> datetime:
        """The instant ``seconds`` from now by the store's clock."""
        return instant(self.driver.time.now() + seconds)

    def advance(self, seconds: float) -> None:
        self.driver.advance(seconds)

    def renew(self) -> None:
        """Begin again, elsewhere."""
        self.driver.renew()

    def outlive(self, ttl: float) -> None:
        """Let ``ttl`` end, and the time pass within which that must show."""
        self.driver.advance(ttl + self.pace.slack + 0.01)
