"""The statuses of a memory store, with its groups and shared values: laws 20 to 27.

Not locked: the store's lock is held by whoever calls. ``now`` is the store's clock in epoch seconds.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from stem_core.builtin.limits import take
from stem_core.builtin.memory.groups import Group
from stem_core.builtin.memory.ordered import Ordered
from stem_core.clock import instant
from stem_core.ports.backend import (
    Callback,
    GroupAnswer,
    GroupRecord,
    LimitAnswer,
    Outcome,
    StateEntry,
    StateRead,
)
from stem_core.status import StatusPage, StatusQuery, StatusUpdate, TaskStatus, merge

__all__ = ["Expiring", "Records", "matches"]

V = TypeVar("V")


class Expiring(Generic[V]):
    """Values by key, each for a time."""

    __slots__ = ("_deadlines", "_keys", "_values")

    def __init__(self) -> None:
        self._values: dict[str, V] = {}
        self._deadlines: dict[str, float] = {}
        self._keys: Ordered[tuple[float, str], str] = Ordered()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: str, now: float) -> V | None:
        self.expire(now)
        return self._values.get(key)

    def peek(self, key: str) -> V | None:
        """As :meth:`get` without looking at the time."""
        return self._values.get(key)

    def put(self, key: str, value: V, ttl: float | None, now: float) -> None:
        """Set ``key`` until now + ``ttl`` seconds; None is for ever."""
        self._values[key] = value
        old = self._deadlines.pop(key, None)
        if old is not None:
            self._keys.remove((old, key))
        if ttl is not None:
            self._deadlines[key] = now + ttl
            self._keys.add((now + ttl, key), key)

    def remove(self, key: str) -> bool:
        old = self._deadlines.pop(key, None)
        if old is not None:
            self._keys.remove((old, key))
        return self._values.pop(key, None) is not None

    def expire(self, now: float) -> None:
        while (first := self._keys.first()) is not None and first[0] <= now:
            self.remove(first[1])

    def items(self) -> Iterator[tuple[str, V]]:
        return iter(self._values.items())


@dataclass(slots=True)
class Row:
    """A status and its place in the order of first recording."""

    place: int
    status: TaskStatus


class Records:
    """Everything a backend keeps."""

    def __init__(self) -> None:
        self._groups: Final[Expiring[Group]] = Expiring()
        self._rows: Final[Expiring[Row]] = Expiring()
        self._state: Final[Expiring[tuple[bytes, int]]] = Expiring()
        self._arrivals: Final[Expiring[float]] = Expiring()  # GCRA's theoretical arrival times
        self._log: list[tuple[int, str]] = []  # (place, id) of rows, rising; expired ones are dropped in bulk
        self._counter = itertools.count(1)

    # statuses

    def fetch(self, id: str, now: float) -> TaskStatus | None:
        row = self._rows.get(id, now)
        return None if row is None else row.status

    def record(self, update: StatusUpdate, now: float) -> bool:
        status = merge(self.fetch(update.id, now), update)
        if status is not None:
            self.put(status, update.ttl, now)
        return status is not None

    def put(self, status: TaskStatus, ttl: float | None, now: float) -> None:
        """Keep ``status`` as it is; it was merged already."""
        row = self._rows.get(status.id, now)
        if row is None:
            row = Row(next(self._counter), status)
            self._log.append((row.place, status.id))
            self._forget_expired()
        else:
            row.status = status
        self._rows.put(status.id, row, ttl, now)

    def page(self, query: StatusQuery, now: float) -> StatusPage:
        """Newest first by first recording; the cursor is the place of the last one shown."""
        self._rows.expire(now)
        self._forget_expired()
        end = (
            len(self._log) if query.cursor is None else bisect.bisect_left(self._log, (int(query.cursor), ""))
        )
        items: list[TaskStatus] = []
        last = 0
        for place, id in reversed(self._log[:end]):
            status = self._at(place, id)
            if status is None or not matches(query, status):
                continue
            if len(items) == query.limit:
                return StatusPage(tuple(items), str(last))
            items.append(status)
            last = place
        return StatusPage(tuple(items))

    def _forget_expired(self) -> None:
        """Drop from the log what has expired, once that is more than half of it."""
        if len(self._log) > 2 * len(self._rows) + 32:
            self._log = [(place, id) for place, id in self._log if self._at(place, id) is not None]

    def _at(self, place: int, id: str) -> TaskStatus | None:
        row = self._rows.peek(id)
        return row.status if row is not None and row.place == place else None

    # groups

    def group_create(self, group: Group, now: float) -> bool:
        if self._groups.get(group.id, now) is not None:
            return False
        self._groups.put(group.id, group, group.ttl, now)
        return True

    def group_add(self, id: str, member: str, outcome: Outcome, now: float) -> GroupAnswer:
        group = self._groups.get(id, now)
        if group is None:
            return GroupAnswer(0, False)
        self._groups.put(id, group, group.ttl, now)
        return group.add(member, outcome)

    def group_close(self, id: str, reason: str, now: float) -> GroupAnswer:
        group = self._groups.get(id, now)
        return GroupAnswer(0, False) if group is None else group.close(reason)

    def callback(self, id: str, now: float) -> tuple[Callback, ...]:
        group = self._groups.get(id, now)
        return () if group is None else group.callback

    def group_get(self, id: str, outcomes: bool, now: float) -> GroupRecord | None:
        group = self._groups.get(id, now)
        return None if group is None else group.record(outcomes=outcomes)

    # state

    def state_read(self, key: str, now: float) -> StateRead:
        value, version = self._state.get(key, now) or (None, 0)
        return StateRead(value, version, instant(now))

    def state_write(self, key: str, value: bytes, expect: int, ttl: float | None, now: float) -> int | None:
        if self.state_read(key, now).version != expect:
            return None
        version = next(self._counter)
        self._state.put(key, (value, version), ttl, now)
        return version

    def state_delete(self, key: str, expect: int | None, now: float) -> bool:
        if expect is not None and self.state_read(key, now).version != expect:
            return False
        return self._state.get(key, now) is not None and self._state.remove(key)

    def state_scan(self, prefix: str, now: float) -> list[StateEntry]:
        self._state.expire(now)
        found = [StateEntry(key, *entry) for key, entry in self._state.items() if key.startswith(prefix)]
        return sorted(found, key=lambda entry: entry.key)

    # limiter

    def limit_take(self, key: str, permits: int, rate: float, burst: int, now: float) -> LimitAnswer:
        answer, arrival = take(self._arrivals.get(key, now), permits, rate, burst, now)
        if arrival is not None:
            self._arrivals.put(key, arrival, arrival - now, now)
        return answer


def matches(query: StatusQuery, status: TaskStatus) -> bool:
    """Whether ``status`` is one of those asked for."""
    if query.states and status.state not in query.states:
        return False
    if query.names and status.name not in query.names:
        return False
    if query.queues and status.queue not in query.queues:
        return False
    if query.since is None and query.until is None:
        return True
    at = status.enqueued_at
    if at is None or (query.since is not None and at < query.since):
        return False
    return query.until is None or at < query.until
