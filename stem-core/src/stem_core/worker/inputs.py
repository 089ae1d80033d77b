"""Where a derived message gets its first argument from: fetched encoded, decoded where the task runs.

=========  ==================================================================  ===================================
kind       value put first                                                     the task fails when
=========  ==================================================================  ===================================
one        the result of a task, or of the single member of a group            it did not succeed
all        the results of a group in the body's order                          a member did not succeed
none       nothing                                                             a member of a group did not succeed
error      ``{id, type, message}`` of a task                                   never
reply      ``{id, state, result}`` of a task                                   never
=========  ==================================================================  ===================================
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import msgspec

from stem_core.envelope import Input
from stem_core.ports.backend import Backend, GroupRecord
from stem_core.ports.encoder import EncodeContext
from stem_core.status import TaskError, TaskState, TaskStatus

__all__ = ["Failed", "Gathered", "Missing", "decode", "gather"]


class Decoder(Protocol):
    """The part of the encoder registry that inputs need."""

    def decode(self, chain: str, data: bytes, context: EncodeContext) -> Any: ...


class Piece(msgspec.Struct, frozen=True):
    """One encoded result; without an encoder it is None (a result that was not kept)."""

    id: str
    payload: bytes | None
    encoder: str | None


class Gathered(msgspec.Struct, frozen=True):
    """An input, still encoded, so that it can be sent to another process."""

    kind: Literal["one", "all", "error", "reply", "none"]
    pieces: tuple[Piece, ...] = ()
    state: str = ""
    error: TaskError | None = None


class Failed(msgspec.Struct, frozen=True):
    """What should have made the input did not succeed: the task fails without being run."""

    member: str
    error: TaskError


class Missing(msgspec.Struct, frozen=True):
    """There is no input to be found: expired, or never recorded."""

    what: str


NOTHING = Gathered("none")


async def gather(wanted: Input, backend: Backend | None) -> Gathered | Failed | Missing:
    """Fetch what ``wanted`` names."""
    if wanted.group is None and (wanted.task is None or wanted.kind == "none"):
        return NOTHING
    if backend is None:
        return Missing("this worker has no backend to fetch it from")
    if wanted.group is not None:
        record = await backend.group_get(wanted.group, outcomes=wanted.kind != "none")
        if record is None:
            return Missing(f"group {wanted.group} is not recorded (or it expired)")
        return _of_group(wanted, record)
    (status,) = await backend.fetch([wanted.task or ""])
    if status is None:
        return Missing(f"task {wanted.task} is not recorded (or it expired)")
    return _of_task(wanted, status)


def decode(gathered: Gathered, encoders: Decoder, namespace: str) -> list[Any]:
    """What is put first among the arguments: a list of one value, or of none.

    :raises DecodeError: a result is not what its stamp says, or its encoder is not installed here.
    """
    if gathered.kind == "none":
        return []
    values = [_value(piece, encoders, namespace) for piece in gathered.pieces]
    if gathered.kind == "all":
        return [values]
    if gathered.kind == "one":
        return values
    about = gathered.pieces[0].id
    if gathered.kind == "error":
        error = gathered.error or TaskError("", "")
        return [{"id": about, "type": error.type, "message": error.message}]
    return [{"id": about, "state": gathered.state, "result": values[0]}]


def _value(piece: Piece, encoders: Decoder, namespace: str) -> Any:
    if piece.payload is None or piece.encoder is None:
        return None
    context = EncodeContext(purpose="result", namespace=namespace, id=piece.id, chain=piece.encoder)
    return encoders.decode(piece.encoder, piece.payload, context)


def _of_task(wanted: Input, status: TaskStatus) -> Gathered | Failed | Missing:
    if not status.terminal:
        return Missing(f"task {status.id} is {status.state.value} again; replay this one when it has ended")
    if wanted.kind in {"error", "reply"}:
        piece = Piece(status.id, status.payload, status.encoder)
        return Gathered(wanted.kind, (piece,), status.state.value, status.error)
    if status.state is not TaskState.SUCCEEDED:
        return Failed(status.id, status.error or TaskError("", f"it is {status.state.value}"))
    return Gathered(wanted.kind, (Piece(status.id, status.payload, status.encoder),))


def _of_group(wanted: Input, record: GroupRecord) -> Gathered | Failed | Missing:
    for member in record.members:
        outcome = record.outcomes.get(member)
        if outcome is not None and outcome.state is not TaskState.SUCCEEDED:
            return Failed(member, outcome.error or TaskError("", f"it is {outcome.state.value}"))
    if record.missing:
        error = TaskError("stem_core.errors.TaskTimeout", record.closed or "it has no outcome yet")
        return Failed(record.missing[0], error)
    if wanted.kind == "none":
        return NOTHING
    pieces = [Piece(member, out.payload, out.encoder) for member, out in _in_order(record)]
    return Gathered(wanted.kind, tuple(pieces))


def _in_order(record: GroupRecord) -> list[tuple[str, Any]]:
    return [(member, record.outcomes[member]) for member in record.members]
