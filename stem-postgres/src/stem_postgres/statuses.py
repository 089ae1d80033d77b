"""The status table: law 20 as one upsert, the columns it takes, and rows read back.

``upsert`` behaves as ``stem_core.status.merge``, evaluated by the server under the row's lock: ``s`` is the row
that is there, ``excluded`` the update. A row past its expires_at counts as absent.
"""

# ruff: noqa: S608 - statements are put together from constants of ours; values travel as parameters

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

import msgspec
from psycopg.rows import TupleRow

from stem_core.status import RANK_TERMINAL, Progress, StatusUpdate, TaskError, TaskState, TaskStatus
from stem_postgres.arrays import (
    Bigints,
    Blobs,
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
    "FETCH",
    "LOCK",
    "PRUNE",
    "SELECTED",
    "error_text",
    "expires_at",
    "meta_text",
    "prune_after",
    "read_error",
    "record",
    "status_columns",
    "status_of",
    "updates_of",
    "upsert",
    "waves",
]

_ATTENTION: Final = frozenset({TaskState.RETRYING, TaskState.FAILED, TaskState.CANCELLED})

_FRESH = "s.expires_at <= statement_timestamp()"
#: Of an update that is accepted, and so never lower; what usually decides comes first.
_MOVED = (
    "(excluded.state <> s.state or excluded.rank <> s.rank or excluded.attempt <> s.attempt"
    f" or excluded.generation <> s.generation or {_FRESH})"
)


def _kept(column: str) -> str:
    """What an update does not carry is kept."""
    return f"{column} = coalesce(excluded.{column}, case when {_FRESH} then null else s.{column} end)"


def _of_the_state(column: str) -> str:
    """What belongs to the state: replaced, even by nothing, when the update moves it."""
    return f"{column} = case when {_MOVED} then excluded.{column} else coalesce(excluded.{column}, s.{column}) end"


_ASSIGNMENTS = ",\n        ".join(
    (
        *(
            f"{name} = excluded.{name}"
            for name in ("state", "rank", "generation", "attempt", "reason", "attention")
        ),
        *(_kept(name) for name in ("name", "queue", "progress", "started_at")),
        *(_of_the_state(name) for name in ("payload", "encoder", "error", "finished_at")),
        f"""enqueued_at = case when excluded.enqueued_at > '-infinity' or {_FRESH}
                           then excluded.enqueued_at else s.enqueued_at end""",
        f"""meta = case when {_FRESH} or s.meta is null then excluded.meta
                    when excluded.meta is null then s.meta else s.meta || excluded.meta end""",
        "expires_at = excluded.expires_at",
        "prune_after = excluded.prune_after",
    )
)


_COLUMNS: Final[Kinds] = {
    "id": Texts,
    "state": Texts,
    "rank": Smallints,
    "generation": Bigints,
    "attempt": Bigints,
    "name": Texts,
    "queue": Texts,
    "payload": Blobs,
    "encoder": Texts,
    "error": Texts,
    "reason": Texts,
    "meta": Texts,
    "progress": Texts,
    "enqueued_at": Instants,
    "started_at": Instants,
    "finished_at": Instants,
    "attention": Texts,
    "ttl": Floats,
    "step": Bigints,
}
_ALIKE: Final = Plain(
    {
        *("state", "rank", "generation", "attempt", "encoder", "error"),
        *("reason", "meta", "progress", "attention", "ttl"),
    }
)


def updates_of(prefix: str, plain: Plain) -> str:
    """The updates of :func:`status_columns` as a relation ``u``."""
    return relation(prefix, _COLUMNS, "u", plain)


def expires_at(ttl: str) -> str:
    """When a status written now, kept for the expression ``ttl`` of seconds, is gone."""
    return f"coalesce(statement_timestamp() + make_interval(secs => {ttl}), 'infinity')"


def prune_after(ttl: str) -> str:
    """The same as the index has it: rounded up to a sixteenth of the time, a minute at least; null for never."""
    step = f"greatest(60, {ttl} / 16)"
    return f"to_timestamp((floor((extract(epoch from statement_timestamp()) + {ttl}) / {step}) + 1) * {step})"


def upsert(prefix: str, plain: Plain, where: str = "") -> str:
    """Record the columns called ``prefix``; returns the ids that law 20 accepted. No id may come twice."""
    return f"""insert into {{s}}.status as s (namespace, id, state, rank, generation, attempt, name, queue, payload,
        encoder, error, reason, meta, progress, enqueued_at, started_at, finished_at, attention, expires_at,
        prune_after)
    select %(namespace)s, u.id, u.state, u.rank, u.generation, u.attempt, u.name, u.queue, u.payload,
           u.encoder, u.error, u.reason, u.meta::jsonb, u.progress, coalesce(u.enqueued_at, '-infinity'),
           u.started_at, u.finished_at, u.attention,
           {expires_at("u.ttl")}, {prune_after("u.ttl")}
    from {updates_of(prefix, plain)}
    {where}
    order by u.id
    on conflict (namespace, id) do update
    set {_ASSIGNMENTS}
    where {_FRESH} or excluded.generation > s.generation
       or (excluded.generation = s.generation and s.rank < {RANK_TERMINAL}
           and (excluded.attempt, excluded.rank) >= (s.attempt, s.rank))
    returning s.id"""


@cache
def record(plain: Plain) -> str:
    """The statement for :func:`status_columns` of "u_" alone."""
    return upsert("u_", plain)


SELECTED: Final = (
    "id, state, generation, attempt, name, queue, payload, encoder, error, reason, meta::text, progress, "
    "nullif(enqueued_at, '-infinity'), started_at, finished_at"
)

FETCH: Final = f"""select {SELECTED} from {{s}}.status
where namespace = %(namespace)s and id = any (%(ids)s) and expires_at > statement_timestamp()"""

#: As FETCH, with the rows locked until the transaction ends, in the order every batch locks them.
LOCK: Final = f"{FETCH} order by id for update"

PRUNE: Final = """delete from {s}.status
where (namespace, id) in (
    select namespace, id from {s}.status where prune_after <= statement_timestamp()
    order by prune_after limit 1000 for update skip locked)
  and expires_at <= statement_timestamp()
returning seq"""

_json = msgspec.json.Encoder().encode
_plain = msgspec.json.Decoder().decode
_map = msgspec.json.Decoder(dict[str, str]).decode
_error = msgspec.json.Decoder(TaskError).decode
_progress = msgspec.json.Decoder(Progress).decode


def waves(updates: Sequence[StatusUpdate]) -> Iterator[list[int]]:
    """The positions of ``updates`` in order, in as few lists as hold no id twice."""
    rest = list(range(len(updates)))
    while rest:
        seen: set[str] = set()
        wave: list[int] = []
        later: list[int] = []
        for position in rest:
            id = updates[position].id
            (later if id in seen else wave).append(position)
            seen.add(id)
        yield wave
        rest = later


def status_columns(prefix: str, updates: Sequence[StatusUpdate], steps: Sequence[int] | None = None) -> Rows:
    """The columns of :func:`upsert`."""
    values: dict[str, Sequence[Any]] = {
        "id": [each.id for each in updates],
        "state": [each.state.value for each in updates],
        "rank": [each.rank for each in updates],
        "generation": [each.generation for each in updates],
        "attempt": [each.attempt for each in updates],
        "name": [each.name for each in updates],
        "queue": [each.queue for each in updates],
        "payload": [each.payload for each in updates],
        "encoder": [each.encoder for each in updates],
        "error": [error_text(each.error) for each in updates],
        "reason": [each.reason for each in updates],
        "meta": [meta_text(each.meta) for each in updates],
        "progress": [None if each.progress is None else _json(each.progress).decode() for each in updates],
        "enqueued_at": [each.enqueued_at for each in updates],
        "started_at": [each.started_at for each in updates],
        "finished_at": [each.finished_at for each in updates],
        "attention": [each.state.value if each.state in _ATTENTION else None for each in updates],
        "ttl": [each.ttl for each in updates],
        "step": range(len(updates)) if steps is None else steps,
    }
    return rows(prefix, _COLUMNS, values, _ALIKE)


def status_of(row: TupleRow) -> TaskStatus:
    """One row of :data:`SELECTED`."""
    (id, state, generation, attempt, name, queue, payload, encoder, error, reason, meta, progress) = row[:12]
    return TaskStatus(
        id=id,
        state=TaskState(state),
        generation=generation,
        attempt=attempt,
        name=name,
        queue=queue,
        payload=payload,
        encoder=encoder,
        error=read_error(error),
        reason=reason,
        meta=_read_meta(meta),
        progress=None if progress is None else _progress(progress),
        enqueued_at=_utc(row[12]),
        started_at=_utc(row[13]),
        finished_at=_utc(row[14]),
    )


def error_text(error: TaskError | None) -> str | None:
    return None if error is None else _json(error).decode()


def read_error(text: str | None) -> TaskError | None:
    return None if text is None else _error(text)


def meta_text(meta: Mapping[str, Any]) -> str | None:
    """A map of JSON texts, as the column keeps it."""
    if not meta:
        return None
    return _json({key: _json(value).decode() for key, value in meta.items()}).decode()


def _read_meta(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    return {key: _plain(value) for key, value in _map(text).items()}


def _utc(value: datetime | None) -> datetime | None:
    return None if value is None else value.astimezone(UTC)
