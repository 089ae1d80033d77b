"""Listing: newest first, each status once over all pages, by whichever index serves the filters given.

Pages go by (enqueued_at, seq), which no ordinary update changes. States that ask for attention (retrying, failed,
cancelled) have an index of their own; queued, running and succeeded are found walking back from the newest.
"""

# ruff: noqa: S608 - statements are put together from constants of ours; values travel as parameters

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from stem_core.clock import instant
from stem_core.errors import ConfigurationError
from stem_core.status import StatusPage, StatusQuery, TaskState
from stem_postgres.arrays import Texts
from stem_postgres.connection import Database
from stem_postgres.statuses import SELECTED, status_of

__all__ = ["page", "statement"]

_ATTENTION: Final = {TaskState.RETRYING, TaskState.FAILED, TaskState.CANCELLED}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


async def page(database: Database, query: StatusQuery) -> StatusPage:
    """What matches, at most ``query.limit``."""
    rows = await database.run(*statement(database.namespace, query))
    items = tuple(status_of(row) for row in rows[: query.limit])
    if len(rows) <= query.limit or not items:
        return StatusPage(items)
    return StatusPage(items, _cursor(items[-1].enqueued_at, rows[query.limit - 1][-1]))


def statement(namespace: str, query: StatusQuery) -> tuple[str, dict[str, Any]]:
    """The statement and its parameters: one row more than asked for, to know whether there is a next page."""
    conditions = ["namespace = %(namespace)s", "expires_at > statement_timestamp()"]
    parameters: dict[str, Any] = {"namespace": namespace, "limit": query.limit + 1}
    if query.states:
        column = "attention" if _ATTENTION.issuperset(query.states) else "state"
        _choose(conditions, parameters, column, tuple(state.value for state in query.states))
    if query.names:
        _choose(conditions, parameters, "name", query.names)
    if query.queues:
        _choose(conditions, parameters, "queue", query.queues)
    if query.since is not None:
        conditions.append("enqueued_at >= %(since)s")
        parameters["since"] = instant(query.since)
    if query.until is not None:
        conditions.append("enqueued_at < %(until)s and enqueued_at > '-infinity'")
        parameters["until"] = instant(query.until)
    if query.cursor is not None:
        at, parameters["seq"] = _read_cursor(query.cursor)
        parameters["at"] = at
        after = "(enqueued_at, seq) < (coalesce(%(at)s::timestamptz, '-infinity'), %(seq)s)"
        conditions.append(after)
    text = f"""select {SELECTED}, seq from {{s}}.status where {" and ".join(conditions)}
    order by enqueued_at desc, seq desc limit %(limit)s"""
    return text, parameters


def _choose(conditions: list[str], parameters: dict[str, Any], column: str, values: tuple[str, ...]) -> None:
    if len(values) == 1:  # an equality lets the index give the order too
        conditions.append(f"{column} = %({column})s")
        parameters[column] = values[0]
    else:
        conditions.append(f"{column} = any (%({column})s)")
        parameters[column] = Texts(values)


def _cursor(at: datetime | None, seq: int) -> str:
    return f"{'' if at is None else (at - _EPOCH) // _MICROSECOND}.{seq}"


def _read_cursor(cursor: str) -> tuple[datetime | None, int]:
    at, _, seq = cursor.partition(".")
    if not seq.isdigit() or (at and not at.lstrip("-").isdigit()):
        raise ConfigurationError(f"{cursor!r} is not a cursor of list; pass on what the last page gave")
    return (_EPOCH + int(at) * _MICROSECOND if at else None), int(seq)
