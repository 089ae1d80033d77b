"""Port values as the scripts take and give them.

The servers' msgpack knows text but no bytes, so a call carries rows of text and numbers, and beside them
one string of every binary part, in the rows' order, which the rows give the sizes of.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

import msgspec

from stem_core.envelope import Message, Receipt
from stem_core.ports.backend import GroupOutcome
from stem_core.status import Progress, StatusUpdate, TaskError, TaskState, TaskStatus

__all__ = [
    "INFO",
    "OutcomeInfo",
    "Row",
    "index_hour",
    "instant_of",
    "life",
    "message_row",
    "microseconds",
    "milliseconds",
    "outcome_row",
    "pack_rows",
    "receipt_parts",
    "status_of",
    "status_row",
]

#: What a script takes for one item, to be joined with others: see the file that reads it.
Row = list[Any]

pack_rows: Final = msgspec.msgpack.Encoder().encode
_unpack: Final = msgspec.msgpack.Decoder().decode
_error_of: Final = msgspec.msgpack.Decoder(TaskError).decode
_progress_of: Final = msgspec.msgpack.Decoder(Progress).decode
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR: Final = 3_600_000_000
#: The longest life in milliseconds, two centuries: field o has ten digits for the second in which it ends.
_LONGEST_LIFE: Final = 200 * 365 * 86_400_000
#: The index bucket of a status that does not say when it was enqueued.
_UNKNOWN_HOUR: Final = "00000000"


class OutcomeInfo(msgspec.Struct, frozen=True, omit_defaults=True, array_like=True):
    """What is kept of a member's outcome beside its payload."""

    state: TaskState
    encoder: str | None = None
    error: TaskError | None = None


INFO: Final = msgspec.msgpack.Decoder(OutcomeInfo)


def milliseconds(seconds: float) -> int:
    """A duration in whole milliseconds, never shorter than it was."""
    return max(0, math.ceil(seconds * 1000))


def life(ttl: float | None) -> int:
    """A time to live in whole milliseconds, -1 for ever."""
    return -1 if ttl is None else min(max(1, milliseconds(ttl)), _LONGEST_LIFE)


def instant_of(milliseconds: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=milliseconds)


def microseconds(value: datetime) -> int:
    """An instant as microseconds since the epoch."""
    return round(value.timestamp() * 1_000_000)


def index_hour(microseconds: int) -> str:
    """The index bucket of a status that was enqueued then (see status.lua)."""
    return f"{microseconds // _HOUR:08d}"


def _from_micros(value: bytes) -> datetime:
    return _EPOCH + timedelta(microseconds=int(value))


# messages


def message_row(root: int, message: Message, parts: list[bytes]) -> Row:
    """The row of a publish (see ``publish`` in queue.lua); its sealed bytes go to ``parts``.

    Every row is a flat list: a call carries the rows of all its items as one.
    """
    sealed = message.sealed
    parts.append(sealed)
    due = message.not_before
    return [
        root,
        message.priority,
        message.id,
        len(sealed),
        1 if message.once else 0,
        0 if due is None else math.ceil(due.timestamp() * 1000),
        milliseconds(message.delay) if message.delay else 0,
    ]


def receipt_parts(receipt: Receipt) -> tuple[int, str, int, str, int, str] | None:
    """(level, entry, count, id, once, queue) of a receipt, None for what is none of ours."""
    parts = receipt.split(" ", 5)
    if len(parts) != 6:
        return None
    level, entry, count, id, once, queue = parts
    try:
        return int(level), entry, int(count), id, int(once), queue
    except ValueError:
        return None


# statuses


def status_row(update: StatusUpdate, parts: list[bytes]) -> Row:
    """The row of an update (see status.lua); binary fields go to ``parts``."""
    order, tail = _order(update.generation, update.attempt, update.rank, update.state, update.reason)
    row: Row = [update.id, order, tail, _UNKNOWN_HOUR, life(update.ttl), 0, 0]
    owned = False
    if update.name is not None:
        row += ("n", update.name)
    if update.queue is not None:
        row += ("q", update.queue)
    if update.enqueued_at is not None:
        micros = microseconds(update.enqueued_at)
        row += ("t", str(micros))
        row[3] = index_hour(micros)
    if update.started_at is not None:
        row += ("b", str(microseconds(update.started_at)))
    if update.finished_at is not None:
        row += ("f", str(microseconds(update.finished_at)))
        owned = True
    if update.encoder is not None:
        row += ("c", update.encoder)
        owned = True
    row[6] = len(row) - 7
    at = len(row)
    row.append(0)
    if update.payload is not None:
        row += ("p", len(update.payload))
        parts.append(update.payload)
        owned = True
    if update.error is not None:
        _binary("e", pack_rows(update.error), row, parts)
        owned = True
    if update.progress is not None:
        _binary("g", pack_rows(update.progress), row, parts)
    for key, value in update.meta.items():
        _binary(f"m:{key}", pack_rows(value), row, parts)
    row[at] = len(row) - at - 1
    if owned:
        row[5] = 1
    return row


@lru_cache(256)
def _order(generation: int, attempt: int, rank: int, state: TaskState, reason: str | None) -> tuple[str, str]:
    """The order, and the state and reason, as field o holds them."""
    text = state.value if reason is None else f"{state.value}|{reason}"
    return f"{generation:010d}{attempt:010d}{rank}", text


def _binary(name: str, value: bytes, binary: list[Any], parts: list[bytes]) -> None:
    binary += (name, len(value))
    parts.append(value)


def status_of(id: str, flat: Sequence[bytes]) -> TaskStatus | None:
    """The status in a hash's flat fields; None when there is none."""
    if not flat:
        return None
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    order = fields[b"o"].decode()
    state, bar, reason = order[50:].partition("|")
    get = fields.get
    name, queue, encoder, error, progress = get(b"n"), get(b"q"), get(b"c"), get(b"e"), get(b"g")
    enqueued, started, finished = get(b"t"), get(b"b"), get(b"f")
    return TaskStatus(
        id=id,
        state=TaskState(state),
        generation=int(order[:10]),
        attempt=int(order[10:20]),
        name=None if name is None else name.decode(),
        queue=None if queue is None else queue.decode(),
        payload=get(b"p"),
        encoder=None if encoder is None else encoder.decode(),
        error=None if error is None else _error_of(error),
        reason=reason if bar else None,
        meta={key[2:].decode(): _unpack(value) for key, value in fields.items() if key.startswith(b"m:")},
        progress=None if progress is None else _progress_of(progress),
        enqueued_at=None if enqueued is None else _from_micros(enqueued),
        started_at=None if started is None else _from_micros(started),
        finished_at=None if finished is None else _from_micros(finished),
    )


# groups


def outcome_row(added: GroupOutcome, parts: list[bytes]) -> Row:
    """The row of an outcome (see group.lua)."""
    outcome = added.outcome
    info = pack_rows(OutcomeInfo(outcome.state, outcome.encoder, outcome.error))
    parts.append(info)
    size = -1
    if outcome.payload is not None:
        parts.append(outcome.payload)
        size = len(outcome.payload)
    return [added.group, added.member, int(outcome.state is TaskState.SUCCEEDED), len(info), size]
