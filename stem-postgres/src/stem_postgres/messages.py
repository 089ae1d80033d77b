"""The message table: its statements, and the columns they take. The migration's head documents the rows.

A statement is put together from common table expressions, so that a publish alone, a settle alone and a whole
commit say the same thing in the same words. Receipts are looked up one by one (``lateral``) and rows changed by
``seq = any(array(...))``: whatever the planner believes of the table's size, it can only use the key for that.
"""

# ruff: noqa: S608 - statements are put together from constants of ours; values travel as parameters

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

from psycopg.rows import TupleRow

from stem_core.envelope import Ack, DeadLetter, Delivery, Message, Receipt, Release, Retry, Settlement
from stem_core.errors import PayloadTooLarge, UnsupportedCapability
from stem_core.ports.capabilities import BrokerCapabilities
from stem_postgres.arrays import (
    Bigints,
    Blobs,
    Bools,
    Floats,
    Instants,
    Kinds,
    Plain,
    Rows,
    Smallints,
    Texts,
    relation,
    rows,
)

__all__ = [
    "CLAIM",
    "EXTEND",
    "LEVELS",
    "PRUNE",
    "TAKE_OVER",
    "check",
    "claim_columns",
    "delivery_of",
    "due",
    "held",
    "insert_messages",
    "lock",
    "parse_receipt",
    "publish",
    "publish_columns",
    "receipt_columns",
    "settle",
    "settle_columns",
    "settled",
]

LEVELS: Final = 10

_ACK, _RETRY, _RELEASE, _DEAD = range(4)


def check(messages: Iterable[Message], capabilities: BrokerCapabilities) -> None:
    """Refuse, before anything is stored, what the table could not keep as it was asked.

    :raises PayloadTooLarge: over ``max_size``.
    :raises UnsupportedCapability: a level there is not, or a route.
    """
    most = capabilities.max_size
    for each in messages:
        if most is not None and len(each.sealed) > most:
            raise PayloadTooLarge(
                f"Message {each.id!r} is {len(each.sealed)} bytes; PostgreSQL takes {most} here. Pass a reference to "
                "the data."
            )
        if not 0 <= each.priority < LEVELS:
            raise UnsupportedCapability(
                f"Message {each.id!r} has level {each.priority}; postgres has levels 0 to {LEVELS - 1}"
            )
        if each.route:
            raise UnsupportedCapability(
                f"Message {each.id!r} has a route; postgres does not declare routing. Choose the queue instead."
            )


_PUBLISHED: Final[Kinds] = {
    "queue": Texts,
    "id": Texts,
    "priority": Smallints,
    "not_before": Instants,
    "delay": Floats,
    "once": Bools,
    "sealed": Blobs,
    "step": Bigints,
}
_PUBLISHED_ALIKE: Final = Plain({"priority", "not_before", "delay", "once"})


#: Of an insert into message "m": an id that is known stays as it is, one whose memory ended is as good as new.
TAKE_OVER: Final = """on conflict (namespace, id, queue) do update
    set seq = excluded.seq, priority = excluded.priority, state = 0, not_before = excluded.not_before,
        due = excluded.due, lease_until = null,
        generation = 0, attempt = 0, deliveries = 0, once = excluded.once, sealed = excluded.sealed
    where m.state = 3 and m.due <= statement_timestamp()"""


def due(not_before: str, delay: str) -> str:
    """When a message published now is due, from the expressions of an instant or null, and of seconds."""
    return f"greatest({not_before}, statement_timestamp() + make_interval(secs => {delay}))"


def insert_messages(plain: Plain, where: str = "") -> str:
    """Insert what :func:`publish_columns` say; an id whose memory ended is taken over.

    ``seq`` is drawn in publish order, rows are locked in the order of ids, like every other batch's.
    """
    return f"""insert into {{s}}.message as m (seq, namespace, queue, id, priority, not_before, due, once, sealed)
    select p.seq, %(namespace)s, p.queue, p.id, p.priority, p.not_before,
           {due("p.not_before", "p.delay")}, p.once, p.sealed
    from (select nextval('{{s}}.message_seq_seq') as seq, p.*
          from {relation("m_", _PUBLISHED, "p", plain)}
          {where}) p
    order by p.id, p.queue
    {TAKE_OVER}
    returning m.queue, m.id"""


@cache
def publish(plain: Plain) -> str:
    """The statement for :func:`publish_columns` alone."""
    return insert_messages(plain)


def publish_columns(messages: Sequence[Message], steps: Sequence[int] | None = None) -> Rows:
    """The columns of :func:`insert_messages`. No (queue, id) may come twice."""
    values: dict[str, Sequence[Any]] = {
        "queue": [each.queue for each in messages],
        "id": [each.id for each in messages],
        "priority": [each.priority for each in messages],
        "not_before": [each.not_before for each in messages],
        "delay": [each.delay for each in messages],
        "once": [each.once for each in messages],
        "sealed": [each.sealed for each in messages],
        "step": range(len(messages)) if steps is None else steps,
    }
    return rows("m_", _PUBLISHED, values, _PUBLISHED_ALIKE)


# One range scan per queue and level, highest level first, and no more of them than the limit needs: the outer
# limit stops the loop. Scheduled messages are never visited. An ended lease is as good as none. Nothing ready:
# one row without a message, with the seconds until something will be.
CLAIM: Final = """with pick as materialized (
    select m.seq
    from unnest(%(queues)s, %(levels)s) as p (queue, level)
    cross join lateral (
        select seq from {s}.message
        where namespace = %(namespace)s and queue = p.queue and priority = p.level and state = 0
          and due <= statement_timestamp() and (lease_until is null or lease_until <= statement_timestamp())
        order by due, seq
        limit %(limit)s
        for update skip locked
    ) m
    limit %(limit)s
), claimed as (
    update {s}.message as m
    set token = token + 1, deliveries = deliveries + 1,
        lease_until = clock_timestamp() + make_interval(secs => %(lease)s)
    where seq = any (array(select seq from pick))
    returning m.seq, m.token, m.id, m.queue, m.priority, m.once, m.sealed, m.generation, m.attempt, m.deliveries,
              m.lease_until, m.not_before, m.due
)
select seq, token, id, queue, priority, once, sealed, generation, attempt, deliveries, lease_until, not_before, due,
       null::double precision
from claimed
union all
select null, null, null, null, null, null, null, null, null, null, null, null, null,
       (select extract(epoch from min(least(e.due, e.lease_until)) - clock_timestamp())::double precision
        from unnest(%(queues)s, %(levels)s) as p (queue, level)
        cross join lateral (
            select (select due from {s}.message
                    where namespace = %(namespace)s and queue = p.queue and priority = p.level and state = 0
                      and due > statement_timestamp()
                    order by due limit 1) as due,
                   (select min(lease_until) from {s}.message
                    where namespace = %(namespace)s and queue = p.queue and priority = p.level and state = 0
                      and due <= statement_timestamp()) as lease_until
        ) e)
where not exists (select from pick)"""


def claim_columns(queues: Sequence[str], turn: int) -> dict[str, Any]:
    """Every level of every queue, highest first; at one level the queues take turns at coming first."""
    start = turn % len(queues)
    rotated = [*queues[start:], *queues[:start]]
    return {
        "queues": Texts(rotated * LEVELS),
        "levels": Smallints([level for level in reversed(range(LEVELS)) for _ in rotated]),
    }


def delivery_of(row: TupleRow) -> Delivery:
    """One row of :data:`CLAIM`."""
    seq, token, id, queue, priority, once, sealed, generation, attempt, deliveries = row[:10]
    lease_until, not_before = row[10:12]
    return Delivery(
        message=Message(
            id=id,
            queue=queue,
            priority=priority,
            not_before=not_before and _utc(not_before),
            once=once,
            sealed=sealed,
        ),
        receipt=f"{seq}.{token}",
        lease_until=_utc(lease_until),
        generation=generation,
        attempt=attempt,
        deliveries=deliveries,
    )


def parse_receipt(receipt: Receipt) -> tuple[int, int]:
    """(seq, token); (-1, -1), which nothing has, for a text that is no receipt of ours."""
    seq, _, token = receipt.partition(".")
    if seq.isdigit() and token.isdigit() and len(seq) < 19 and len(token) < 19:
        return int(seq), int(token)
    return -1, -1


def receipt_columns(pairs: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """The columns of :data:`EXTEND`."""
    return {"r_seq": Bigints([seq for seq, _ in pairs]), "r_token": Bigints([token for _, token in pairs])}


_SETTLED: Final[Kinds] = {
    "seq": Bigints,
    "token": Bigints,
    "action": Smallints,
    "delay": Floats,
    "reason": Texts,
    "detail": Blobs,
    "step": Bigints,
}
_SETTLED_ALIKE: Final = Plain({"action", "delay", "reason", "detail"})


def held(plain: Plain) -> str:
    """``given``, the receipts of :func:`settle_columns`, and ``held``, those that still hold: their rows locked in
    the order of seq.
    """
    return f"""given as materialized (
    select * from {relation("r_", _SETTLED, "g", plain)}
), held as materialized (
    select g.*, l.once, l.queue
    from given g
    cross join lateral (
        select m.once, m.queue from {{s}}.message m
        where m.seq = g.seq and m.token = g.token and m.state = 0 and m.lease_until is not null
        for update
    ) l
)"""


def settled(where: str = "") -> str:
    """What becomes of the held rows, three ways; ``where`` narrows them further."""
    narrowed = f"and {where}" if where else ""
    return f"""gone as (
    delete from {{s}}.message
    where seq = any (array(select h.seq from held h where h.action = {_ACK} and not h.once {narrowed}))
), remembered as (
    update {{s}}.message
    set state = 3, lease_until = null, sealed = '',
        due = statement_timestamp() + make_interval(secs => %(once_ttl)s)
    where seq = any (array(select h.seq from held h where h.action = {_ACK} and h.once {narrowed}))
), kept as (
    update {{s}}.message m
    set (state, lease_until, due, attempt, deliveries, reason, detail, dead_at) = (
        select case h.action when {_DEAD} then 2 else 0 end,
               null::timestamptz,
               case when h.action = {_RETRY} or (h.action = {_RELEASE} and h.delay > 0)
                    then statement_timestamp() + make_interval(secs => h.delay) else m.due end,
               case h.action when {_RETRY} then m.attempt + 1 else m.attempt end,
               case h.action when {_RETRY} then 0 when {_RELEASE} then m.deliveries - 1 else m.deliveries end,
               h.reason, h.detail, case h.action when {_DEAD} then statement_timestamp() end
        from held h where h.seq = m.seq)
    where seq = any (array(select h.seq from held h where h.action <> {_ACK} {narrowed}))
)"""


@cache
def settle(plain: Plain) -> str:
    """The statement for :func:`settle_columns` alone: the receipts that held, with the queue where something soon
    becomes ready again.
    """
    return f"""with {held(plain)}, {settled()}
select seq, token, case when action in ({_RETRY}, {_RELEASE}) and delay < 2 then queue end from held"""


@cache
def lock(plain: Plain) -> str:
    """The receipts of :func:`settle_columns` that hold, their rows locked."""
    return f"with {held(plain)} select seq, token from held"


def settle_columns(
    settlements: Sequence[Settlement], once_ttl: float, steps: Sequence[int] | None = None
) -> Rows:
    """The columns of :func:`held` and :func:`settled`, in the order of seq, so that two batches lock alike.

    ``steps`` are numbers to find the settlements by. No receipt may come twice.
    """
    numbers = range(len(settlements)) if steps is None else steps
    sortable = sorted(
        (*parse_receipt(each.receipt), *_coded(each), step)
        for each, step in zip(settlements, numbers, strict=True)
    )
    values = dict(zip(_SETTLED, zip(*sortable, strict=True), strict=True))
    for name in ("reason", "detail"):
        pairs = zip(values[name], values["action"], strict=True)
        values[name] = tuple(each if action == _DEAD else None for each, action in pairs)
    plain, parameters = rows("r_", _SETTLED, values, _SETTLED_ALIKE)
    return Rows(plain, {"once_ttl": once_ttl, **parameters})


def _coded(settlement: Settlement) -> tuple[int, float, str, bytes]:
    action = settlement.action
    if isinstance(action, Ack):
        return _ACK, 0.0, "", b""
    if isinstance(action, Retry):
        return _RETRY, action.delay, "", b""
    if isinstance(action, Release):
        return _RELEASE, action.delay, "", b""
    assert isinstance(action, DeadLetter)
    return _DEAD, 0.0, action.reason, action.detail.encode(errors="surrogatepass")


EXTEND: Final = """with held as materialized (
    select g.seq, g.token
    from unnest(%(r_seq)s, %(r_token)s) as g (seq, token)
    cross join lateral (
        select from {s}.message m
        where m.seq = g.seq and m.token = g.token and m.state = 0 and m.lease_until is not null
        for update
    ) l
), extended as (
    update {s}.message
    set lease_until = clock_timestamp() + make_interval(secs => %(lease)s)
    where seq = any (array(select seq from held))
)
select seq, token from held"""


#: Forget ids whose time is over; a thousand at a time, one process at a time, their state looked at again under lock.
PRUNE: Final = """delete from {s}.message
where pg_try_advisory_xact_lock(%(lock)s)
  and seq = any (array(
    select seq from {s}.message where state = 3 and due <= statement_timestamp()
    order by due limit 1000 for update skip locked))
returning seq"""


def _utc(value: datetime) -> datetime:
    return value.astimezone(UTC)
