"""Listing statuses: hour by hour through the index, newest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from stem_core.status import StatusPage, StatusQuery, TaskStatus
from stem_redis.connection import Server
from stem_redis.wire import pack_rows, status_of

__all__ = ["fetch_statuses", "list_statuses"]

#: Ids one script call looks at, and the most it answers.
_LOOK: Final = 1000
_ANSWER: Final = 200


async def fetch_statuses(server: Server, prefix: str, ids: Sequence[str]) -> list[TaskStatus | None]:
    """The status of each id, None where there is none."""
    found: list[TaskStatus | None] = []
    for first in range(0, len(ids), _LOOK):
        some = ids[first : first + _LOOK]
        flats = await server.run("fetch", (), prefix, pack_rows(some))
        found += map(status_of, some, flats)
    return found


async def list_statuses(server: Server, prefix: str, query: StatusQuery) -> StatusPage:
    """What matches ``query``; the cursor is the hour and position of the last.

    :raises ValueError: a cursor that is none of ours.
    """
    filters = pack_rows([[state.value for state in query.states], query.names, query.queues])
    items: list[TaskStatus] = []
    cursor = ""
    at_hour, at = _parse(query.cursor)
    for hour in await _hours(server, prefix, query):
        if at_hour is not None and hour > at_hour:
            continue
        below = at if hour == at_hour else -1
        while below:
            flat, below = await server.run("list", (), prefix, hour, below, _LOOK, _ANSWER, filters)
            statuses = await fetch_statuses(server, prefix, [id.decode() for id in flat[::2]])
            for status, position in zip(statuses, flat[1::2], strict=True):
                if status is None or not _matches(status, query):
                    continue
                if len(items) == query.limit:  # there is one more: a next page
                    return StatusPage(tuple(items), cursor)
                items.append(status)
                cursor = f"{hour}:{position}"
    return StatusPage(tuple(items))


async def _hours(server: Server, prefix: str, query: StatusQuery) -> list[int]:
    """The index buckets that may hold what matches, newest first; 0, of unknown time, last."""
    hours = [int(hour) for hour in await server.command("ZREVRANGE", f"{prefix}i", 0, -1)]
    since = None if query.since is None else int(query.since.timestamp() // 3600)
    until = None if query.until is None else int(query.until.timestamp() // 3600)
    return [
        hour
        for hour in hours
        if hour == 0 or ((since is None or hour >= since) and (until is None or hour <= until))
    ]


def _matches(status: TaskStatus, query: StatusQuery) -> bool:
    """The script looked a moment ago, and knows nothing of times."""
    at = status.enqueued_at
    return (
        (not query.states or status.state in query.states)
        and (not query.names or status.name in query.names)
        and (not query.queues or status.queue in query.queues)
        and (query.since is None or (at is not None and query.since <= at))
        and (query.until is None or (at is not None and at < query.until))
    )


def _parse(cursor: str | None) -> tuple[int | None, int]:
    if cursor is None:
        return None, -1
    hour, _, position = cursor.partition(":")
    if not hour.isdigit() or not position.isdigit():
        raise ValueError(f"cursor={cursor!r} is not one that this backend gave")
    return int(hour), int(position)
