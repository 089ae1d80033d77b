"""Groups: members that are counted once, under the lock of their group's row.

The row lock serialises everything about a group, so what completes it is decided here, in Python, from what was
read under it: two members that end at once cannot both, or neither, be the last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from stem_core.ports.backend import Callback, GroupAnswer, GroupOutcome, GroupRecord, Outcome
from stem_core.status import TaskState
from stem_postgres.arrays import Bigints, Blobs, Texts
from stem_postgres.connection import Flow, Query
from stem_postgres.statuses import error_text, read_error

__all__ = ["PRUNE", "Ledger", "add", "close", "create", "get", "lock"]

_FORGET: Final = """with gone as (
    delete from {s}.task_group where namespace = %(namespace)s and id = %(id)s and expires_at <= statement_timestamp()
    returning id)
delete from {s}.group_member where namespace = %(namespace)s and group_id in (select id from gone)"""

_CREATE: Final = """insert into {s}.task_group
    (namespace, id, size, open, callback, completed_by, deadline, ttl, expires_at)
values (%(namespace)s, %(id)s, %(size)s, %(size)s, %(callback)s, case %(size)s when 0 then '' end, %(deadline)s,
        %(ttl)s, statement_timestamp() + make_interval(secs => %(ttl)s))
on conflict (namespace, id) do nothing
returning id"""

_MEMBERS: Final = """insert into {s}.group_member (namespace, group_id, member, position)
select %(namespace)s, %(id)s, m.member, m.position
from unnest(%(members)s) with ordinality as m (member, position)
order by m.member"""

_LOCK: Final = """select id, open, callback, completed_by from {s}.task_group
where namespace = %(namespace)s and id = any (%(ids)s) and expires_at > statement_timestamp()
order by id for update"""

_LOOK: Final = """select g.id, g.member, m.state from unnest(%(groups)s, %(members)s) as g (id, member)
cross join lateral (
    select state from {s}.group_member
    where namespace = %(namespace)s and group_id = g.id and member = g.member) m"""

# The rows are there and locked by their group's lock; an upsert finds them by key whatever the planner believes.
_COUNT: Final = """insert into {s}.group_member as m
    (namespace, group_id, member, position, state, payload, encoder, error)
select %(namespace)s, o.id, o.member, 0, o.state, o.payload, o.encoder, o.error
from unnest(%(groups)s, %(members)s, %(states)s, %(payloads)s, %(encoders)s, %(errors)s)
     as o (id, member, state, payload, encoder, error)
on conflict (namespace, group_id, member) do update
set state = excluded.state, payload = excluded.payload, encoder = excluded.encoder, error = excluded.error"""

_WRITE: Final = """with given as materialized (
    select * from unnest(%(ids)s, %(open)s, %(completed_by)s) as g (id, open, completed_by))
update {s}.task_group t
set (open, completed_by, expires_at) = (
    select g.open, g.completed_by, statement_timestamp() + make_interval(secs => t.ttl)
    from given g where g.id = t.id)
where t.namespace = %(namespace)s and t.id = any (%(ids)s)"""

_CLOSE: Final = """with closed as (
    update {s}.task_group set completed_by = '', closed = %(reason)s
    where namespace = %(namespace)s and id = %(id)s and expires_at > statement_timestamp()
      and completed_by is null
    returning open)
select open, true from closed
union all
select open, coalesce(closed = %(reason)s, false) from {s}.task_group
where namespace = %(namespace)s and id = %(id)s and expires_at > statement_timestamp()
  and not exists (select from closed)"""

_GET: Final = """select callback, completed_by, closed, deadline from {s}.task_group
where namespace = %(namespace)s and id = %(id)s and expires_at > statement_timestamp()"""

_GET_MEMBERS: Final = """select member, state, case when %(payloads)s then payload end, encoder, error
from {s}.group_member
where namespace = %(namespace)s and group_id = %(id)s
order by position"""

PRUNE: Final = """with gone as (
    delete from {s}.task_group where (namespace, id) in (
        select namespace, id from {s}.task_group where expires_at <= statement_timestamp()
        order by expires_at limit 200 for update skip locked)
    returning namespace, id)
, members as (
    delete from {s}.group_member m using gone g where m.namespace = g.namespace and m.group_id = g.id)
select 1 from gone"""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[Callback, ...]).decode


@dataclass(slots=True)
class _Group:
    open: int
    callback: bytes | None
    completed_by: str | None
    changed: bool = False


class Ledger:
    """The groups a transaction has locked, and what it adds to them."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._groups: dict[str, _Group] = {}
        self._states: dict[tuple[str, str], str | None] = {}
        self._added: list[GroupOutcome] = []

    def found(self, id: str, group: _Group) -> None:
        self._groups[id] = group

    def member(self, group: str, member: str, state: str | None) -> None:
        self._states[group, member] = state

    def add(self, outcome: GroupOutcome) -> bool:
        """Count an outcome once; whether it completed its group just now."""
        key = outcome.group, outcome.member
        group = self._groups.get(outcome.group)
        if group is None or key not in self._states or self._states[key] is not None:
            return False
        self._states[key] = outcome.outcome.state.value
        self._added.append(outcome)
        group.open -= 1
        group.changed = True
        if group.completed_by is not None:
            return False
        failed = outcome.outcome.state is not TaskState.SUCCEEDED
        if group.open and not (failed and group.callback is not None):
            return False
        group.completed_by = outcome.member
        return True

    def answer(self, id: str, member: str) -> GroupAnswer:
        group = self._groups.get(id)
        if group is None or (id, member) not in self._states:
            return GroupAnswer(0, False)
        return GroupAnswer(group.open, group.completed_by == member)

    def callback(self, id: str) -> tuple[Callback, ...]:
        data = self._groups[id].callback
        return () if data is None else _decode(data)

    def write(self) -> Flow[None]:
        if not self._added:
            return
        outcomes = [each.outcome for each in self._added]
        yield Query(
            _COUNT,
            {
                "namespace": self._namespace,
                "groups": Texts([each.group for each in self._added]),
                "members": Texts([each.member for each in self._added]),
                "states": Texts([each.state.value for each in outcomes]),
                "payloads": Blobs([each.payload for each in outcomes]),
                "encoders": Texts([each.encoder for each in outcomes]),
                "errors": Texts([error_text(each.error) for each in outcomes]),
            },
        )
        changed = sorted(
            ((id, group) for id, group in self._groups.items() if group.changed), key=lambda pair: pair[0]
        )
        yield Query(
            _WRITE,
            {
                "namespace": self._namespace,
                "ids": Texts([id for id, _ in changed]),
                "open": Bigints([group.open for _, group in changed]),
                "completed_by": Texts([group.completed_by for _, group in changed]),
            },
        )


def lock(outcomes: Sequence[GroupOutcome], namespace: str) -> Flow[Ledger]:
    """Lock the groups of ``outcomes`` until the transaction ends, and read what deciding needs."""
    ledger = Ledger(namespace)
    if not outcomes:
        return ledger
    ids = sorted({each.group for each in outcomes})
    rows = yield Query(_LOCK, {"namespace": namespace, "ids": Texts(ids)})
    for id, open, callback, completed_by in rows:
        ledger.found(id, _Group(open, callback, completed_by))
    pairs = sorted({(each.group, each.member) for each in outcomes})
    rows = yield Query(
        _LOOK,
        {
            "namespace": namespace,
            "groups": Texts([group for group, _ in pairs]),
            "members": Texts([member for _, member in pairs]),
        },
    )
    for id, member, state in rows:
        ledger.member(id, member, state)
    return ledger


def add(id: str, member: str, outcome: Outcome, namespace: str) -> Flow[GroupAnswer]:
    """One outcome in a transaction of its own."""
    given = GroupOutcome(id, member, outcome)
    ledger = yield from lock([given], namespace)
    ledger.add(given)
    yield from ledger.write()
    return ledger.answer(id, member)


def create(
    id: str,
    members: Sequence[str],
    callback: Sequence[Callback],
    deadline: datetime | None,
    ttl: float,
    namespace: str,
) -> Flow[bool]:
    """Open a group; False when there is one of that id."""
    key: Mapping[str, Any] = {"namespace": namespace, "id": id}
    yield Query(_FORGET, key)
    unique = list(dict.fromkeys(members))
    rows = yield Query(
        _CREATE,
        {
            **key,
            "size": len(unique),
            "callback": _encode(tuple(callback)) if callback else None,
            "deadline": deadline,
            "ttl": ttl,
        },
    )
    if not rows:
        return False
    yield Query(_MEMBERS, {**key, "members": Texts(unique)})
    return True


def close(id: str, reason: str, namespace: str) -> Flow[GroupAnswer]:
    """Complete an open group from outside."""
    # Locked first: the second half of the statement must see what a member committed while we waited.
    yield Query(_LOCK, {"namespace": namespace, "ids": Texts([id])})
    rows = yield Query(_CLOSE, {"namespace": namespace, "id": id, "reason": reason})
    return GroupAnswer(rows[0][0], rows[0][1]) if rows else GroupAnswer(0, False)


def get(id: str, outcomes: bool, namespace: str) -> Flow[GroupRecord | None]:
    """The whole group, or None."""
    key: Mapping[str, Any] = {"namespace": namespace, "id": id}
    rows = yield Query(_GET, key)
    if not rows:
        return None
    callback, completed_by, closed, deadline = rows[0]
    members = yield Query(_GET_MEMBERS, {**key, "payloads": outcomes})
    return GroupRecord(
        id=id,
        members=tuple(row[0] for row in members),
        callback=() if callback is None else _decode(callback),
        outcomes={
            member: Outcome(TaskState(state), payload, encoder, read_error(error))
            for member, state, payload, encoder, error in members
            if state is not None
        },
        completed_by=completed_by,
        closed=closed,
        deadline=None if deadline is None else deadline.astimezone(UTC),
    )
