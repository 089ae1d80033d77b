"""What a worker and its child processes say to each other, and the bytes it travels as.

A frame is its length (u32, big-endian) and a MessagePack map of one of the values below, over a socket pair that
only the two have. Worker to child: :class:`Hello` once, then :class:`Job` and :class:`Answer`. Child to
worker: for each job one :class:`Started`, any number of :class:`Ask` and :class:`Enqueue`, one :class:`Returned` or :class:`Raised`.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any, Final, Literal

import msgspec

from stem_core.envelope import Envelope
from stem_core.options import TaskRetryPolicy
from stem_core.retry import RetryRequest
from stem_core.status import TaskError
from stem_core.worker.inputs import Gathered
from stem_core.worker.logs import Form
from stem_core.worker.resources import Name

__all__ = [
    "Answer",
    "Ask",
    "Enqueue",
    "Frame",
    "Hello",
    "Job",
    "Raised",
    "Returned",
    "Started",
    "read",
    "receive",
    "send",
]

_LENGTH: Final = struct.Struct("!I")


class Hello(msgspec.Struct, frozen=True, tag=True):
    """Where to import from, what to make before the first job and to free after the last, and where logs go; once."""

    path: list[str]
    main_name: str | None
    main_path: str | None
    namespace: str
    limit: int
    on_startup: list[Name]
    on_shutdown: list[Name]
    logs: tuple[Form, str] | None


class Job(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """One run: what to import, and everything the handler needs (``envelope`` without its derived messages)."""

    module: str
    qualname: str
    envelope: Envelope
    gathered: Gathered
    result_encoder: str
    keep_result: bool
    attempt: int
    generation: int


class Answer(msgspec.Struct, frozen=True, tag=True):
    """What the worker answers: a value, or an error as type and text (and the ``outcome`` of a PublishError)."""

    value: Any = None
    error: tuple[str, str] | None = None
    outcome: Literal["refused", "unknown"] = "refused"


class Started(msgspec.Struct, frozen=True, tag=True):
    """The handler is about to be called: limits count from here."""


class Ask(msgspec.Struct, frozen=True, tag=True):
    """A method of the task's context that only the worker can do."""

    what: Literal["heartbeat", "extend_lease", "progress"]
    value: Any = None


class Enqueue(msgspec.Struct, frozen=True, tag=True):
    """Publish this. The answer is the id of the task it is a duplicate of, if it is one."""

    sealed: bytes
    retry: TaskRetryPolicy | None
    locked_for: float


class Returned(msgspec.Struct, frozen=True, tag=True):
    """The handler returned; ``payload`` is its encoded result."""

    payload: bytes | None
    encoder: str | None


class Raised(msgspec.Struct, frozen=True, tag=True):
    """The handler raised, or (``stage``) the child could not be made ready for jobs, the arguments not be decoded, the
    result not be encoded.
    """

    error: TaskError
    names: tuple[str, ...]
    request: RetryRequest | None = None
    stage: Literal["startup", "decode", "run", "encode"] = "run"


Frame = Hello | Job | Answer | Started | Ask | Enqueue | Returned | Raised

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Frame).decode


def pack(frame: Frame) -> bytes:
    """A frame with its length before it."""
    data = _encode(frame)
    return _LENGTH.pack(len(data)) + data


async def read(reader: asyncio.StreamReader) -> Any:
    """The next frame, in the worker.

    :raises EOFError: the child is gone.
    """
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        return _decode(await reader.readexactly(length))
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise EOFError from error


def send(connection: socket.socket, frame: Frame) -> None:
    """Send a frame, in the child."""
    connection.sendall(pack(frame))


def receive(connection: socket.socket) -> Any:
    """The next frame, in the child.

    :raises EOFError: the worker is gone, or has no more work.
    """
    (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size))
    return _decode(_exactly(connection, length))


def _exactly(connection: socket.socket, count: int) -> bytes:
    parts = []
    while count:
        part = connection.recv(min(count, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
