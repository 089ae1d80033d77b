"""Commands to workers and their replies: values, and the bytes they travel as. Pure.

A command is broadcast on channel ``control``, its replies on ``control.reply.<command id>``. Both are sealed
like envelopes, with a purpose of their own, so a signed message is never a command nor the reverse;
where there is a signer, unsigned commands are refused. A command is good for :data:`LIFETIME` seconds, once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, TypeVar

import msgspec

from stem_core import sealing
from stem_core.errors import DecodeError, SignatureInvalid
from stem_core.ports.signer import PayloadSigner

__all__ = ["CHANNEL", "LIFETIME", "Command", "Reply", "reply_channel"]

CHANNEL: Final = "control"
LIFETIME: Final = 60.0
_PURPOSE: Final = "stem-control-v1"
_LIMIT: Final = 1_048_576

Kind = Literal["ping", "inspect", "stats", "pause", "resume", "revoke", "shutdown"]


class Command(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What workers are asked to do. ``workers`` names those it is for; empty means all.

    ``sent_at`` in seconds since the epoch, by the sender's clock.
    """

    id: str
    kind: Kind
    sent_at: float
    workers: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = msgspec.field(default_factory=dict)

    def is_for(self, worker: str) -> bool:
        return not self.workers or worker in self.workers


class Reply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one worker answered: plain data, or an error as text."""

    command: str
    worker: str
    answer: Any = None
    error: str = ""


T = TypeVar("T", Command, Reply)


def reply_channel(command: str) -> str:
    """Where the replies to a command go."""
    return f"control.reply.{command}"


def seal(value: Command | Reply, *, namespace: str, signer: PayloadSigner | None) -> bytes:
    """A command or reply as bytes, signed when there is a signer.

    :raises ConfigurationError: the signer can only verify.
    """
    inner = msgspec.msgpack.encode(value)
    if signer is None:
        return sealing.pack((), inner)
    return sealing.pack(signer.sign(_PURPOSE, namespace, inner, queue=CHANNEL, task=CHANNEL), inner)


def open_command(data: bytes, *, namespace: str, signer: PayloadSigner | None) -> Command:
    """The command in ``data``, verified when there is a signer.

    :raises SignatureInvalid: it is not from who may command.
    :raises DecodeError: it is no command.
    """
    return _open(data, Command, namespace, signer)


def open_reply(data: bytes) -> Reply:
    """The reply in ``data``. Workers may hold verifying keys only, so replies are not signed.

    :raises DecodeError: it is no reply.
    """
    return _open(data, Reply, "", None)


def _open(data: bytes, kind: type[T], namespace: str, signer: PayloadSigner | None) -> T:
    if len(data) > _LIMIT:
        raise DecodeError(f"A command of {len(data)} bytes; the limit is {_LIMIT}.")
    parts = sealing.unpack(data)
    if signer is not None:
        if not parts.signatures:
            raise SignatureInvalid("The command is not signed, and this worker has a signer.")
        scope = signer.verify(_PURPOSE, namespace, parts.inner, parts.signatures)
        if scope.queues is not None or scope.tasks is not None:
            raise SignatureInvalid(f"Key {scope.key_id!r} is limited to queues or tasks and may not command.")
    try:
        return msgspec.msgpack.decode(parts.inner, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise DecodeError(f"Not a {kind.__name__.lower()}: {error}") from None
