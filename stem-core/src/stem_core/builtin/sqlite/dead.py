"""Dead letters, as functions of a transaction: law 12."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from stem_core.builtin.sqlite.queues import MESSAGE, forget, message_of
from stem_core.builtin.sqlite.unit import Unit, listed
from stem_core.clock import instant
from stem_core.envelope import DeadMessage, DeadPage

__all__ = ["Filter", "listing", "purge", "replay"]


class Filter:
    """Which dead letters of one queue, as SQL."""

    def __init__(
        self, ids: Sequence[str] | None, reason: str | None, before: datetime | None, after: int = 0
    ) -> None:
        clauses = ["d.place > ?"]
        self._values: list[Any] = [after]
        if ids is not None:
            clauses.append("m.id IN (SELECT value FROM json_each(?))")
            self._values.append(listed(ids))
        if reason is not None:
            clauses.append("d.reason = ?")
            self._values.append(reason)
        if before is not None:
            clauses.append("d.at < ?")
            self._values.append(instant(before).timestamp())
        self._where = " AND ".join(clauses)

    def rows(self, unit: Unit, ns: int, name: str, columns: str, limit: int | None) -> list[Any]:
        """``columns`` of dead ``d`` and message ``m``, oldest first."""
        return unit.rows(
            f"SELECT {columns} FROM dead d JOIN messages m ON m.seq = d.seq "  # noqa: S608
            f"WHERE d.queue = (SELECT queue FROM queues WHERE ns = ? AND name = ?) AND {self._where} "
            "ORDER BY d.place LIMIT ?",
            (ns, name, *self._values, -1 if limit is None else limit),
        )


def listing(unit: Unit, ns: int, name: str, wanted: Filter, limit: int) -> DeadPage:
    rows = wanted.rows(
        unit, ns, name, f"d.place, d.reason, d.detail, d.at, d.generation, d.attempt, {MESSAGE}", limit + 1
    )
    items = [
        DeadMessage(
            message=message_of(name, row[6:]),
            reason=row[1],
            detail=row[2],
            dead_at=instant(row[3]),
            generation=row[4],
            attempt=row[5],
        )
        for row in rows[:limit]
    ]
    return DeadPage(tuple(items), str(rows[limit - 1][0]) if len(rows) > limit > 0 else None)


def replay(
    unit: Unit, ns: int, name: str, wanted: Filter, limit: int | None, *, dry_run: bool
) -> list[tuple[str, int]]:
    """Ready again, behind what is there: each gets a new place in publish order."""
    rows = wanted.rows(
        unit, ns, name, "d.place, d.seq, d.queue, m.priority, d.generation + 1, CAST(m.id AS TEXT)", limit
    )
    if not dry_run:
        last = unit.value("SELECT coalesce(max(seq), 0) FROM messages")
        for new, (place, seq, queue, priority, generation, _) in enumerate(rows, last + 1):
            unit.execute("DELETE FROM dead WHERE place = ?", (place,))
            unit.execute("UPDATE messages SET seq = ? WHERE seq = ?", (new, seq))
            unit.execute(
                "INSERT INTO ready VALUES (?, ?, ?, ?, ?, 0, 0)",
                (queue, -priority, new, unit.now, generation),
            )
        unit.woken.add((ns, name))
    return [(row[5], row[4]) for row in rows]


def purge(
    unit: Unit, ns: int, name: str, wanted: Filter, limit: int | None, keep: int, once_ttl: float
) -> int:
    rows = wanted.rows(unit, ns, name, "d.place, d.seq", None)
    gone = rows[: max(0, len(rows) - keep)][:limit]
    if gone:
        unit.execute(
            "DELETE FROM dead WHERE place IN (SELECT value FROM json_each(?))",
            (listed(row[0] for row in gone),),
        )
        forget(unit, [seq for _, seq in gone], once_ttl)
    return len(gone)
