"""Statuses, as functions of a transaction: laws 20 to 23 and 27."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from stem_core.builtin.sqlite.unit import Unit, insert, listed
from stem_core.status import (
    RANK_TERMINAL,
    StatusPage,
    StatusQuery,
    StatusUpdate,
    TaskState,
    TaskStatus,
    merge,
)

__all__ = ["Sheet", "fetch", "page", "record"]

#: Seconds to which the indexed time of expiry is rounded up.
_PRUNE_STEP: Final = 600.0
#: Expired statuses removed for each one written, at most, and besides.
_PRUNE_EACH: Final = 2
_PRUNE_MORE: Final = 20

#: As SQLite takes them: exactly text.
_STATES: Final = {state: state.value for state in TaskState}

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(TaskStatus).decode


class Sheet:
    """The statuses that one transaction reads and changes: loaded at once, merged here, written at once."""

    def __init__(self, unit: Unit, ns: int, ids: Sequence[str]) -> None:
        self._unit = unit
        self._ns = ns
        #: Where the rows are that there are, expired ones too: id -> (place, expires).
        self._rows: dict[str, tuple[int, float | None]] = {}
        self._statuses: dict[str, TaskStatus] = {}
        #: What is to be written: id -> seconds to keep it.
        self._changed: dict[str, float | None] = {}
        for index, place, expires, body in unit.rows(
            "SELECT json_each.key, place, expires, body FROM json_each(?) CROSS JOIN statuses s "
            "ON s.id = json_each.value AND s.ns = ?",
            (listed(ids), ns),
        ):
            id = ids[index]
            self._rows[id] = place, expires
            if expires is None or expires > unit.now:
                self._statuses[id] = _decode(body)

    def take(self, updates: Sequence[StatusUpdate]) -> bool:
        """Merge them in order; nothing of any when a terminal one is refused, and then the answer is False."""
        if len(updates) == 1:
            return self.record(updates[0]) or updates[0].rank != RANK_TERMINAL
        merged: dict[str, TaskStatus] = {}
        kept: dict[str, float | None] = {}
        for update in updates:
            status = merge(merged.get(update.id) or self._statuses.get(update.id), update)
            if status is not None:
                merged[update.id] = status
                kept[update.id] = update.ttl
            elif update.rank == RANK_TERMINAL:
                return False
        self._statuses.update(merged)
        self._changed.update(kept)
        return True

    def record(self, update: StatusUpdate) -> bool:
        """Merge one; False when it is refused, terminal or not."""
        status = merge(self._statuses.get(update.id), update)
        if status is not None:
            self._statuses[update.id] = status
            self._changed[update.id] = update.ttl
        return status is not None

    def write(self) -> None:
        """Write what changed; most renewals leave ``prune`` as it is, and then no index is touched."""
        if not self._changed:
            return
        unit = self._unit
        unit.recorded.append((self._ns, self._statuses))
        last: int = unit.value("SELECT coalesce(max(place), 0) FROM statuses")
        new: list[Sequence[Any]] = []
        same: list[Sequence[Any]] = []
        moved: list[Sequence[Any]] = []
        for id, ttl in self._changed.items():
            status = self._statuses[id]
            expires = None if ttl is None else unit.now + ttl
            prune = _prune(expires)
            old = self._rows.get(id)
            if old is None:
                last += 1
                place, rows = last, new
            else:
                place, rows = old[0], same if _prune(old[1]) == prune else moved
            enqueued = None if status.enqueued_at is None else status.enqueued_at.timestamp()
            rows.append(
                (
                    place, self._ns, id, _STATES[status.state], status.name, status.queue, enqueued,
                    expires, prune, _encode(status),
                )
            )  # fmt: skip
        insert(unit, "statuses", 10, new)
        insert(unit, "statuses", 10, same, _UPDATE)
        insert(unit, "statuses", 10, moved, f"{_UPDATE}, prune = excluded.prune")
        unit.execute(
            "DELETE FROM statuses WHERE place IN (SELECT place FROM statuses WHERE prune <= ? LIMIT ?)",
            (unit.now, _PRUNE_EACH * len(self._changed) + _PRUNE_MORE),
        )


def _prune(expires: float | None) -> float | None:
    """When a status that expires then may be removed."""
    return None if expires is None else math.ceil(expires / _PRUNE_STEP) * _PRUNE_STEP


_UPDATE: Final = (
    "ON CONFLICT (place) DO UPDATE SET state = excluded.state, name = excluded.name, queue = excluded.queue, "
    "enqueued = excluded.enqueued, expires = excluded.expires, body = excluded.body"
)


def record(unit: Unit, ns: int, updates: Sequence[StatusUpdate]) -> list[bool]:
    sheet = Sheet(unit, ns, [update.id for update in updates])
    recorded = [sheet.record(update) for update in updates]
    sheet.write()
    return recorded


def fetch(unit: Unit, ns: int, ids: Sequence[str]) -> list[TaskStatus | None]:
    found = unit.rows(
        "SELECT id, body FROM statuses WHERE id IN (SELECT value FROM json_each(?)) AND ns = ? "
        "AND (expires IS NULL OR expires > ?)",
        (listed(ids), ns, unit.now),
    )
    by_id = {id: _decode(body) for id, body in found}
    return [by_id.get(id) for id in ids]


def page(unit: Unit, ns: int, query: StatusQuery) -> StatusPage:
    """Newest first by first recording; the cursor is the place of the last one shown."""
    clauses = ["ns = ?", "(expires IS NULL OR expires > ?)"]
    values: list[Any] = [ns, unit.now]
    for column, wanted in (("state", query.states), ("name", query.names), ("queue", query.queues)):
        if wanted:
            clauses.append(f"{column} IN ({','.join('?' * len(wanted))})")
            values += [str(each) for each in wanted]
    if query.since is not None:
        clauses.append("enqueued >= ?")
        values.append(query.since.timestamp())
    if query.until is not None:
        clauses.append("enqueued < ?")
        values.append(query.until.timestamp())
    if query.cursor is not None:
        clauses.append("place < ?")
        values.append(int(query.cursor))
    rows = unit.rows(
        f"SELECT place, body FROM statuses WHERE {' AND '.join(clauses)} ORDER BY place DESC LIMIT ?",  # noqa: S608
        (*values, query.limit + 1),
    )
    items = tuple(_decode(body) for _, body in rows[: query.limit])
    more = len(rows) > query.limit > 0
    return StatusPage(items, str(rows[query.limit - 1][0]) if more else None)
