"""Statuses, as functions of a transaction: laws 20 to 23 and 27."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from stem_core.builtin.sqlite.unit import Unit, insert, listed
from stem_core.status import RANK_TERMINAL, StatusPage, StatusQuery, StatusUpdate, TaskStatus, merge

__all__ = ["Sheet", "fetch", "page", "record"]

#: Seconds to which the indexed time of expiry is rounded up.
_PRUNE_STEP: Final = 600.0
#: Expired statuses removed for each one written, at most, and besides.
_PRUNE_EACH: Final = 2
_PRUNE_MORE: Final = 20

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(TaskStatus).decode


class Row:
    """One status as it is, or is going to be, in the file. ``prune`` is None also for a row to be made."""

    __slots__ = ("changed", "expires", "kept_prune", "place", "prune", "status")

    def __init__(self, place: int | None, prune: float | None, status: TaskStatus | None) -> None:
        self.place = place
        self.kept_prune = self.prune = prune
        self.expires: float | None = None
        self.status = status
        self.changed = False


class Sheet:
    """The statuses that one transaction reads and changes: loaded at once, merged here, written at once."""

    def __init__(self, unit: Unit, ns: int, ids: Sequence[str]) -> None:
        self._unit = unit
        self._ns = ns
        found = unit.rows(
            "SELECT id, place, prune, expires, body FROM statuses "
            "WHERE id IN (SELECT value FROM json_each(?)) AND ns = ?",
            (listed(ids), ns),
        )
        self._rows: dict[str, Row] = {
            id: Row(place, prune, None if expires is not None and expires <= unit.now else _decode(body))
            for id, place, prune, expires, body in found
        }

    def merged(self, updates: Sequence[StatusUpdate]) -> list[tuple[TaskStatus, float | None]] | None:
        """What to write of ``updates``, in order; None when a terminal one is refused. Changes nothing."""
        result: list[tuple[TaskStatus, float | None]] = []
        staged: dict[str, TaskStatus] = {}
        for update in updates:
            current = staged.get(update.id) or self._status(update.id)
            status = merge(current, update)
            if status is not None:
                staged[update.id] = status
                result.append((status, update.ttl))
            elif update.rank == RANK_TERMINAL:
                return None
        return result

    def put(self, status: TaskStatus, ttl: float | None) -> None:
        row = self._rows.setdefault(status.id, Row(None, None, None))
        row.status = status
        row.changed = True
        row.expires = None if ttl is None else self._unit.now + ttl
        row.prune = None if row.expires is None else math.ceil(row.expires / _PRUNE_STEP) * _PRUNE_STEP
        if status.terminal:
            self._unit.finished.add((self._ns, status.id))

    def record(self, update: StatusUpdate) -> bool:
        status = merge(self._status(update.id), update)
        if status is not None:
            self.put(status, update.ttl)
        return status is not None

    def _status(self, id: str) -> TaskStatus | None:
        row = self._rows.get(id)
        return None if row is None else row.status

    def write(self) -> None:
        """Write what changed; most renewals leave ``prune`` as it is, and then no index is touched."""
        unit = self._unit
        changed = [row for row in self._rows.values() if row.changed]
        if not changed:
            return
        place = unit.value("SELECT coalesce(max(place), 0) FROM statuses")
        new: list[Sequence[Any]] = []
        same: list[Sequence[Any]] = []
        moved: list[Sequence[Any]] = []
        for row in changed:
            if row.place is None:
                place += 1
                new.append(self._columns(place, row))
            else:
                (same if row.prune == row.kept_prune else moved).append(self._columns(row.place, row))
        insert(unit, "statuses", 10, new)
        insert(unit, "statuses", 10, same, _UPDATE)
        insert(unit, "statuses", 10, moved, f"{_UPDATE}, prune = excluded.prune")
        unit.execute(
            "DELETE FROM statuses WHERE place IN (SELECT place FROM statuses WHERE prune <= ? LIMIT ?)",
            (unit.now, _PRUNE_EACH * len(changed) + _PRUNE_MORE),
        )

    def _columns(self, place: int, row: Row) -> Sequence[Any]:
        status = row.status
        assert status is not None  # put() set it
        enqueued = None if status.enqueued_at is None else status.enqueued_at.timestamp()
        return (
            place, self._ns, status.id, status.state.value, status.name, status.queue, enqueued,
            row.expires, row.prune, _encode(status),
        )  # fmt: skip


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
