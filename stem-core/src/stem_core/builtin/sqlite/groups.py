"""Groups, as functions of a transaction: law 24."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from stem_core.builtin.sqlite.unit import Unit, insert
from stem_core.clock import instant
from stem_core.ports.backend import Callback, GroupAnswer, GroupRecord, Outcome
from stem_core.status import TaskState

__all__ = ["add", "callbacks", "close", "create", "get"]

_PRUNE: Final = 10

_encode: Final = msgspec.msgpack.Encoder().encode
_decode_outcome: Final = msgspec.msgpack.Decoder(Outcome).decode
_decode_callbacks: Final = msgspec.msgpack.Decoder(tuple[Callback, ...]).decode


def create(
    unit: Unit,
    ns: int,
    id: str,
    members: Sequence[str],
    callback: Sequence[Callback],
    deadline: datetime | None,
    ttl: float,
) -> bool:
    for (grp,) in unit.rows("SELECT grp FROM groups WHERE expires <= ? LIMIT ?", (unit.now, _PRUNE)):
        _remove(unit, grp)
    old = unit.rows("SELECT grp, expires FROM groups WHERE id = ? AND ns = ?", (id, ns))
    if old and old[0][1] > unit.now:
        return False
    for grp, _ in old:
        _remove(unit, grp)
    grp = unit.execute(
        "INSERT INTO groups (ns, id, remaining, has_callback, completed_by, deadline, ttl, expires) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            ns, id, len(set(members)), bool(callback), None if members else "",
            None if deadline is None else instant(deadline).timestamp(), ttl, unit.now + ttl,
        ),
    ).lastrowid  # fmt: skip
    rows = [(grp, member, position, None) for position, member in enumerate(dict.fromkeys(members))]
    insert(unit, "group_members", 4, rows)
    if callback:
        unit.execute("INSERT INTO callbacks VALUES (?, ?)", (grp, _encode(tuple(callback))))
    return True


def _remove(unit: Unit, grp: int) -> None:
    for table in ("groups", "group_members", "callbacks"):
        unit.execute(f"DELETE FROM {table} WHERE grp = ?", (grp,))  # noqa: S608


def add(unit: Unit, ns: int, id: str, member: str, outcome: Outcome) -> GroupAnswer:
    """Count ``outcome`` once; the member that completed the group is told so on every repeat."""
    found = unit.rows(
        "SELECT g.grp, g.remaining, g.has_callback, g.completed_by, g.ttl, m.outcome IS NULL "
        "FROM groups g LEFT JOIN group_members m ON m.grp = g.grp AND m.member = ? "
        "WHERE g.id = ? AND g.ns = ? AND g.expires > ?",
        (member, id, ns, unit.now),
    )
    if not found:
        return GroupAnswer(0, False)
    grp, left, has_callback, completed_by, ttl, is_first = found[0]
    unit.execute("UPDATE groups SET expires = ? WHERE grp = ?", (unit.now + ttl, grp))
    if is_first:
        counted = unit.execute(
            "UPDATE group_members SET outcome = ? WHERE grp = ? AND member = ? AND outcome IS NULL",
            (_encode(outcome), grp, member),
        ).rowcount
        if not counted:  # not a member
            return GroupAnswer(0, False)
        left -= 1
        failed = has_callback and outcome.state is not TaskState.SUCCEEDED
        if completed_by is None and (failed or left == 0):
            completed_by = member
        unit.execute(
            "UPDATE groups SET remaining = ?, completed_by = ? WHERE grp = ?", (left, completed_by, grp)
        )
    return GroupAnswer(left, completed_by == member)


def close(unit: Unit, ns: int, id: str, reason: str) -> GroupAnswer:
    """Complete it from outside if it is open; the reason that did is told so on every repeat."""
    found = unit.rows(
        "SELECT grp, remaining, completed_by, closed FROM groups WHERE id = ? AND ns = ? AND expires > ?",
        (id, ns, unit.now),
    )
    if not found:
        return GroupAnswer(0, False)
    grp, left, completed_by, closed = found[0]
    if completed_by is None:
        unit.execute("UPDATE groups SET completed_by = '', closed = ? WHERE grp = ?", (reason, grp))
        closed = reason
    return GroupAnswer(left, closed == reason)


def callbacks(unit: Unit, ns: int, id: str) -> tuple[Callback, ...]:
    body = unit.value(
        "SELECT c.body FROM groups g JOIN callbacks c ON c.grp = g.grp WHERE g.id = ? AND g.ns = ?", (id, ns)
    )
    return () if body is None else _decode_callbacks(body)


def get(unit: Unit, ns: int, id: str, *, outcomes: bool) -> GroupRecord | None:
    found = unit.rows(
        "SELECT grp, completed_by, closed, deadline FROM groups WHERE id = ? AND ns = ? AND expires > ?",
        (id, ns, unit.now),
    )
    if not found:
        return None
    grp, completed_by, closed, deadline = found[0]
    members = unit.rows("SELECT member, outcome FROM group_members WHERE grp = ? ORDER BY position", (grp,))
    kept = {member: _decode_outcome(outcome) for member, outcome in members if outcome is not None}
    if not outcomes:
        kept = {member: Outcome(each.state, error=each.error) for member, each in kept.items()}
    return GroupRecord(
        id=id,
        members=tuple(member for member, _ in members),
        callback=callbacks(unit, ns, id),
        outcomes=kept,
        completed_by=completed_by,
        closed=closed,
        deadline=None if deadline is None else instant(deadline),
    )
