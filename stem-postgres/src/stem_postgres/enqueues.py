"""One new task, message and first status, in the statement that costs the server least.

Most of what a statement of one row costs is getting ready: what law 20 says of a status that is there already would be
compiled for every task that has none. This one only inserts, both or neither, and its caller falls back on what can do
anything.
"""

# ruff: noqa: S608 - statements are put together from constants of ours; values travel as parameters

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from stem_core.ports.committer import Step
from stem_core.status import TaskState
from stem_postgres import messages, statuses
from stem_postgres.connection import Query

__all__ = ["is_lone", "query"]

_TTL: Final = "%(ttl)s::float8"

#: Answers a row when both are stored. No row: the id has a status after all, and nothing was stored; or its message is
#: known, and only the status was.
_ENQUEUE: Final = f"""with queued as (
    insert into {{s}}.status (namespace, id, state, rank, generation, attempt, name, queue, meta, enqueued_at,
        expires_at, prune_after)
    values (%(namespace)s, %(id)s, '{TaskState.QUEUED.value}', 0, 0, 0, %(name)s, %(shown)s, %(meta)s::jsonb,
            coalesce(%(enqueued_at)s::timestamptz, '-infinity'),
            {statuses.expires_at(_TTL)}, {statuses.prune_after(_TTL)})
    on conflict (namespace, id) do nothing
    returning id
)
insert into {{s}}.message as m (namespace, queue, id, priority, not_before, due, once, sealed)
select %(namespace)s, %(queue)s, id, %(priority)s::smallint, %(not_before)s::timestamptz,
       {messages.due("%(not_before)s::timestamptz", "%(delay)s::float8")}, %(once)s::boolean, %(sealed)s::bytea
from queued
{messages.TAKE_OVER}
returning 1"""


def is_lone(steps: Sequence[Step]) -> bool:
    """Whether this is one new task whose id nobody can know: the statement would do nothing for one that is known."""
    return len(steps) == 1 and steps[0].is_new_work() and not steps[0].publishes[0].once


def query(step: Step, namespace: str) -> Query:
    """The statement for a step that :func:`is_lone`."""
    (update,), (message,) = step.updates, step.publishes
    return Query(
        _ENQUEUE,
        {
            "namespace": namespace,
            "id": message.id,
            "name": update.name,
            "shown": update.queue,
            "meta": statuses.meta_text(update.meta),
            "enqueued_at": update.enqueued_at,
            "ttl": update.ttl,
            "queue": message.queue,
            "priority": message.priority,
            "not_before": message.not_before,
            "delay": message.delay,
            "once": message.once,
            "sealed": message.sealed,
        },
    )
