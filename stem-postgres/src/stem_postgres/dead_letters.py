"""Dead letters: rows of the message table in state 2, listed, replayed and removed by filters."""

# ruff: noqa: S608 - statements are put together from constants of ours; values travel as parameters

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from psycopg.rows import TupleRow

from stem_core.clock import instant
from stem_core.envelope import DeadMessage, DeadPage, Message
from stem_core.errors import ConfigurationError
from stem_postgres.arrays import Texts
from stem_postgres.connection import Database
from stem_postgres.steps import Scope

__all__ = ["Filter", "page", "purge", "replay"]


@dataclass(frozen=True, slots=True)
class Filter:
    """What a caller asked for; None is any."""

    queue: str
    ids: Sequence[str] | None
    reason: str | None
    before: datetime | None


_MATCHING: Final = """namespace = %(namespace)s and queue = %(queue)s and state = 2
  and (%(any_id)s or id = any (%(ids)s))
  and (%(reason)s::text is null or reason = %(reason)s)
  and (%(before)s::timestamptz is null or dead_at < %(before)s)"""

_PAGE: Final = f"""select id, queue, priority, not_before, once, sealed, reason, detail, dead_at, generation, attempt, seq
from {{s}}.message
where {_MATCHING} and (dead_at, seq) > (%(after)s, %(after_seq)s)
order by dead_at, seq limit %(limit)s"""

_CANDIDATES: Final = f"""select id, generation + 1 from {{s}}.message
where {_MATCHING} order by dead_at, seq limit %(limit)s"""

_REPLAY: Final = f"""with picked as materialized (
    select seq, dead_at from {{s}}.message where {_MATCHING} order by dead_at, seq limit %(limit)s for update
), replayed as (
    update {{s}}.message
    set state = 0, due = statement_timestamp(), lease_until = null, generation = generation + 1, attempt = 0,
        deliveries = 0, reason = null, detail = null, dead_at = null
    where seq = any (array(select seq from picked))
    returning seq, id, generation
)
select r.id, r.generation from picked p join replayed r on r.seq = p.seq order by p.dead_at, p.seq"""

# The newest `keep` of those that match stay.
_PURGE: Final = f"""with kept as materialized (
    select seq from {{s}}.message where {_MATCHING} order by dead_at desc, seq desc limit %(keep)s
), picked as materialized (
    select seq, once from {{s}}.message
    where {_MATCHING} and seq not in (select seq from kept)
    order by dead_at, seq limit %(limit)s for update
), gone as (
    delete from {{s}}.message where seq = any (array(select seq from picked where not once))
), remembered as (
    update {{s}}.message
    set state = 3, sealed = '', due = statement_timestamp() + make_interval(secs => %(once_ttl)s),
        reason = null, detail = null, dead_at = null
    where seq = any (array(select seq from picked where once))
)
select count(*) from picked"""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


async def page(database: Database, scope: Scope, chosen: Filter, limit: int, cursor: str | None) -> DeadPage:
    """At most ``limit``, after ``cursor``."""
    after, seq = _read_cursor(cursor)
    parameters = _parameters(chosen, scope) | {"after": after, "after_seq": seq, "limit": limit + 1}
    rows = await database.run(_PAGE, parameters)
    items = tuple(_dead(row) for row in rows[:limit])
    if len(rows) <= limit or not items:
        return DeadPage(items)
    last = rows[limit - 1]
    return DeadPage(items, f"{(last[8] - _EPOCH) // _MICROSECOND}.{last[11]}")


async def replay(
    database: Database, scope: Scope, chosen: Filter, limit: int | None, dry_run: bool
) -> list[tuple[str, int]]:
    """(id, new generation) of each."""
    parameters = _parameters(chosen, scope) | {"limit": limit}
    return [
        (id, generation)
        for id, generation in await database.run(_CANDIDATES if dry_run else _REPLAY, parameters)
    ]


async def purge(database: Database, scope: Scope, chosen: Filter, limit: int | None, keep: int) -> int:
    """How many were removed."""
    parameters = _parameters(chosen, scope) | {"limit": limit, "keep": keep, "once_ttl": scope.once_ttl}
    count: int = (await database.run(_PURGE, parameters))[0][0]
    return count


def _parameters(chosen: Filter, scope: Scope) -> dict[str, Any]:
    return {
        "namespace": scope.namespace,
        "queue": chosen.queue,
        "any_id": chosen.ids is None,
        "ids": Texts(chosen.ids or ()),
        "reason": chosen.reason,
        "before": None if chosen.before is None else instant(chosen.before),
    }


def _dead(row: TupleRow) -> DeadMessage:
    id, queue, priority, not_before, once, sealed, reason, detail, dead_at, generation, attempt, _ = row
    return DeadMessage(
        message=Message(
            id=id,
            queue=queue,
            sealed=sealed,
            priority=priority,
            not_before=not_before and not_before.astimezone(UTC),
            once=once,
        ),
        reason=reason,
        detail=detail.decode(errors="surrogatepass"),
        dead_at=dead_at.astimezone(UTC),
        generation=generation,
        attempt=attempt,
    )


def _read_cursor(cursor: str | None) -> tuple[datetime, int]:
    if cursor is None:
        return _EPOCH, -1
    micros, _, seq = cursor.partition(".")
    if not (micros.isdigit() and seq.isdigit()):
        raise ConfigurationError(f"{cursor!r} is not a cursor of dead_list; pass on what the last page gave")
    return _EPOCH + int(micros) * _MICROSECOND, int(seq)
