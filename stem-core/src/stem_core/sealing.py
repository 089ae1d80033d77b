"""Envelope to sealed bytes and back: encode, sign, verify, decode. Pure.

Version 1, integers big-endian; ``docs/wire-format.md`` is the specification, byte by byte:

    "STM" 0x01 | signatures u8 | inner length u32 | signature block ... | inner

A signature block is: length u8, algorithm | length u8, key id | length u16, signature. Inner is a
MessagePack map of the envelope's fields by name, in exactly one form: the fields in the order of
:class:`Envelope`, those at their default left out, everything in its shortest encoding. Signatures cover
``pre_authentication_encoding(ENVELOPE_PURPOSE, algorithm, key id, namespace, inner)``: these bytes exactly,
so verification comes before parsing and nothing is ever re-encoded to check it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

import msgspec

from stem_core.envelope import Envelope
from stem_core.errors import DecodeError, EncodeError, PayloadTooLarge, SignatureInvalid
from stem_core.options import check_id, check_name, parse_rate
from stem_core.plain import check_plain
from stem_core.ports.signer import PayloadSigner, SignatureBlock

__all__ = [
    "ENVELOPE_PURPOSE",
    "MAX_SEALED",
    "Mould",
    "Sealed",
    "open_sealed",
    "pack",
    "parse",
    "seal",
    "unpack",
]

ENVELOPE_PURPOSE: Final = "stem-envelope-v1"
MAX_SEALED: Final = 262_144
MAX_SIGNATURES: Final = 2
#: Most bytes of an algorithm's name or a key's id.
MAX_LABEL: Final = 64
#: Most encoded bytes of one field other than arguments and derived messages (headers and meta, in effect).
MAX_FIELD: Final = 65_536

_MAGIC: Final = b"STM\x01"
_HEAD: Final = struct.Struct("!4sBI")
_MAP_16: Final = 0xDE
_MOST_IN_FIXMAP: Final = 15
_FIXMAPS: Final = tuple(bytes([0x80 | count]) for count in range(_MOST_IN_FIXMAP + 1))
_LARGE_FIELDS: Final = frozenset({"args", "on_success", "on_failure", "on_end"})
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Envelope).decode
_skim = msgspec.msgpack.Decoder(dict[str, msgspec.Raw]).decode


class Sealed(msgspec.Struct, frozen=True):
    """Sealed bytes taken apart, not yet verified."""

    signatures: tuple[SignatureBlock, ...]
    inner: bytes


def seal(
    envelope: Envelope,
    *,
    namespace: str,
    signer: PayloadSigner | None = None,
    limit: int = MAX_SEALED,
    inner: bytes | None = None,
) -> bytes:
    """The sealed bytes of ``envelope``, signed when there is a signer.

    :param inner: its inner bytes, out of a :class:`Mould`.
    :raises PayloadTooLarge: more than ``limit`` bytes.
    :raises EncodeError: a field holds what :func:`open_sealed` would refuse.
    :raises ConfigurationError: the signer has no key for this queue or task.
    """
    if inner is None:
        inner = _inner(envelope)
    if signer is None:
        sealed = _HEAD.pack(_MAGIC, 0, len(inner)) + inner
    else:
        blocks = signer.sign(ENVELOPE_PURPOSE, namespace, inner, queue=envelope.queue, task=envelope.name)
        sealed = pack(blocks, inner)
    if len(sealed) > limit:
        raise PayloadTooLarge(
            f"The message of {envelope.name!r} is {len(sealed)} bytes; the limit is {limit}. Pass a reference "
            "to the data, compress it (args_encoder='json+gzip'), or raise Stem(max_payload=...)."
        )
    return sealed


class Mould:
    """The inner bytes of envelopes that differ in id, arguments and time alone: checked once, then only filled in."""

    def __init__(self, like: Envelope) -> None:
        """:raises EncodeError: as :func:`seal`."""
        inner = _inner(like)
        id, args, time = map(_encode, (like.id, like.args, like.enqueued_at))
        self._to_args = b"".join(map(_encode, ("name", like.name, "queue", like.queue, "args")))
        self._to_time = b"".join(map(_encode, ("encoder", like.encoder, "enqueued_at")))
        head, _, rest = inner.partition(_encode("id") + id)
        self._start = head + _encode("id")
        self._end = rest[len(self._to_args + args + self._to_time + time) :]
        assert self.fill(like.id, like.args, like.enqueued_at) == inner

    def fill(self, id: str, args: bytes, enqueued_at: datetime) -> bytes:
        """The inner bytes with these in them.

        :raises EncodeError: the id is not one.
        """
        try:
            check_id(id)
        except ValueError as error:
            raise EncodeError(f"The task cannot be sealed: {error}") from None
        time = _encode(enqueued_at)
        return b"".join(
            (self._start, _encode(id), self._to_args, _encode(args), self._to_time, time, self._end)
        )


def pack(signatures: Sequence[SignatureBlock], inner: bytes) -> bytes:
    """Signature blocks and inner bytes as sealed bytes; without blocks they are unsigned."""
    if len(signatures) > MAX_SIGNATURES:
        raise ValueError(f"{len(signatures)} signatures; a signer makes 1 or {MAX_SIGNATURES}")
    out = [_HEAD.pack(_MAGIC, len(signatures), len(inner))]
    for block in signatures:
        out += (
            _labels(block.algorithm, block.key_id),
            len(block.signature).to_bytes(2, "big"),
            block.signature,
        )
    out.append(inner)
    return b"".join(out)


def unpack(sealed: bytes) -> Sealed:
    """Sealed bytes taken apart; nothing inside is parsed.

    :raises DecodeError: they are not sealed bytes of version 1, exactly.
    """
    if len(sealed) < _HEAD.size or sealed[:3] != _MAGIC[:3]:
        raise DecodeError("These bytes are not a Stem message: the first three are not 'STM'.")
    magic, count, length = _HEAD.unpack_from(sealed)
    if magic != _MAGIC:
        raise DecodeError(f"Wire format version {magic[3]} is not known here (1 is); upgrade stem-core.")
    if count > MAX_SIGNATURES:
        raise DecodeError(f"A message with {count} signatures; at most {MAX_SIGNATURES} are allowed.")
    position = _HEAD.size
    if not count and len(sealed) - position == length:
        return Sealed((), sealed[position:])
    blocks: list[SignatureBlock] = []
    try:
        for _ in range(count):
            middle = position + 1 + sealed[position]
            end = middle + 1 + sealed[middle]
            start = end + 2
            algorithm, key_id = sealed[position + 1 : middle], sealed[middle + 1 : end]
            position = start + int.from_bytes(sealed[end:start], "big")
            blocks.append(SignatureBlock(_text(algorithm), _text(key_id), sealed[start:position]))
    except IndexError:
        raise DecodeError("The message ends inside a signature block.") from None
    # A block that reaches past the end makes this negative.
    if len(sealed) - position != length:
        raise DecodeError(f"The message says {length} bytes of content; {len(sealed) - position} follow.")
    if len(blocks) > 1 and len({(each.algorithm, each.key_id) for each in blocks}) < len(blocks):
        raise DecodeError(f"Two signatures by the same key {blocks[0].key_id!r}.")
    return Sealed(tuple(blocks), sealed[position:])


def open_sealed(
    sealed: bytes,
    *,
    namespace: str,
    signer: PayloadSigner | None = None,
    limit: int = MAX_SEALED,
) -> Envelope:
    """The envelope in ``sealed``: size checked, then verified, then parsed.

    With a signer nothing is a mere :exc:`DecodeError` before a signature verified: whoever wrote such bytes is
    not known, so nothing may be done in the name of the id they came under.

    :raises SignatureInvalid: a signer is given and no trusted signature verifies, or its key may not speak for
        the envelope's queue or task.
    :raises DecodeError: these are not sealed bytes, or what they hold is not an envelope.
    """
    try:
        if len(sealed) > limit:
            raise DecodeError(f"A message of {len(sealed)} bytes; the limit is {limit}.")
        parts = unpack(sealed)
    except DecodeError as error:
        if signer is None:
            raise
        raise SignatureInvalid(f"Nothing here can be verified: {error}") from None
    if signer is None:
        return parse(parts.inner)
    if not parts.signatures:
        raise SignatureInvalid("The message is not signed, and this process has a signer.")
    scope = signer.verify(ENVELOPE_PURPOSE, namespace, parts.inner, parts.signatures)
    envelope = parse(parts.inner)
    if not scope.allows(envelope.queue, envelope.name):
        raise SignatureInvalid(
            f"Key {scope.key_id!r} may not speak for task {envelope.name!r} on queue {envelope.queue!r}."
        )
    return envelope


def parse(inner: bytes) -> Envelope:
    """The envelope of inner bytes.

    :raises DecodeError: they are not one, or not in the one form an envelope has. That form leaves no room
        for a field this version does not know, a repeated key, or two readers that see different things.
    """
    try:
        _check_fields(inner)
        envelope = _decode(inner)
        _check(envelope)
        same = _form(envelope) == inner
    except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError, DecodeError) as error:
        raise DecodeError(f"The message's content is not an envelope: {error}") from None
    if not same:
        raise DecodeError(
            "The message's content is not in the form of wire format 1: an unknown or repeated field, fields out of "
            "order, a default written out, or a longer encoding than needed. A newer producer? Upgrade stem-core."
        )
    return envelope


def _inner(envelope: Envelope) -> bytes:
    """The inner bytes of ``envelope``, sure to be accepted by :func:`parse`."""
    try:
        # Else once through the decoder: an int where a float is declared takes its one form, a header that is no
        # text is found. Nearly every envelope needs neither, and it would be half the cost of sealing.
        normal = envelope if _is_normal(envelope) else _decode(_encode(envelope))
        _check(normal)
        inner = _form(normal)
        _check_fields(inner)
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError, OverflowError, DecodeError) as error:
        raise EncodeError(f"Task {envelope.name!r} cannot be sealed: {error}") from None
    return inner


def _is_normal(envelope: Envelope) -> bool:
    """Whether every field is sure to be of the very type it is declared with."""
    return (
        type(envelope.delay) is float
        and type(envelope.result_ttl) is float
        and envelope.soft_time_limit is None
        and envelope.time_limit is None
        and envelope.visibility_timeout is None
        and envelope.limits is None
        and not envelope.headers
        and not envelope.route
    )


def _form(envelope: Envelope) -> bytes:
    """The one form of ``envelope``. Its encoder writes the map's head for all fields; the shortest one is due."""
    data = _encode(envelope)
    if data[0] == _MAP_16 and not data[1] and data[2] <= _MOST_IN_FIXMAP:
        return _FIXMAPS[data[2]] + data[3:]
    return data


def _check(envelope: Envelope) -> None:
    """Refuse values no producer means, so that a worker need not think of them.

    :raises ValueError: a field is out of its range.
    :raises DecodeError: the meta is not plain data.
    """
    check_id(envelope.id)
    _check_names(envelope.name, envelope.queue)
    if not 0 <= envelope.priority <= 9:
        raise ValueError(f"priority {envelope.priority} is not between 0 and 9")
    if envelope.max_retries < 0:
        raise ValueError(f"max_retries {envelope.max_retries} is negative")
    if not 0 < envelope.result_ttl < math.inf:
        raise ValueError(f"result_ttl {envelope.result_ttl} is not a positive duration")
    if not 0 <= envelope.delay < math.inf:
        raise ValueError(f"delay {envelope.delay} is not a duration")
    if envelope.soft_time_limit is not None:
        _check_limit(envelope.soft_time_limit)
    if envelope.time_limit is not None:
        _check_limit(envelope.time_limit)
    if envelope.visibility_timeout is not None:
        _check_limit(envelope.visibility_timeout)
    _check_instant(envelope.enqueued_at)
    if envelope.not_before is not None:
        _check_instant(envelope.not_before)
    if envelope.expires is not None:
        _check_instant(envelope.expires)
    if envelope.limits is not None:
        for rate in (envelope.limits.rate_limit, envelope.limits.group_rate_limit):
            if rate is not None:
                parse_rate(rate)
    if envelope.meta:
        _check_meta(envelope.meta)


def _check_meta(meta: Mapping[str, Any]) -> None:
    try:
        check_plain(meta, binary=False)
    except DecodeError as error:
        raise DecodeError(f"meta{str(error).removeprefix('$')}") from None


def _check_limit(limit: float) -> None:
    if not 0 < limit < math.inf:
        raise ValueError(f"a limit of {limit} s; it must be positive and finite")


def _check_instant(instant: datetime) -> None:
    if instant.tzinfo is None:
        raise ValueError(f"{instant} has no timezone")


@lru_cache(maxsize=1024)
def _check_names(name: str, queue: str) -> None:
    """The names of a task and its queue, which come again and again."""
    check_name(name, "task's name")
    check_name(queue, "queue's name")


def _check_fields(inner: bytes) -> None:
    """Bound what decoding allocates: a byte of MessagePack can become a hundred bytes of Python."""
    if len(inner) <= MAX_FIELD:
        return
    fields: Mapping[str, msgspec.Raw] = _skim(inner)
    for name, value in fields.items():
        if name not in _LARGE_FIELDS and len(memoryview(value)) > MAX_FIELD:
            raise ValueError(
                f"{name!r} takes {len(memoryview(value))} bytes; at most {MAX_FIELD} are allowed"
            )


@lru_cache(maxsize=64)
def _labels(algorithm: str, key_id: str) -> bytes:
    """How a block begins; a process signs with a key or two."""
    out = b""
    for label in (algorithm.encode("ascii"), key_id.encode("ascii")):
        if not 1 <= len(label) <= MAX_LABEL:
            raise ValueError(f"{label!r} must be 1 to {MAX_LABEL} bytes")
        out += bytes((len(label),)) + label
    return out


@lru_cache(maxsize=64)
def _text(label: bytes) -> str:
    """An algorithm's name or a key's id, which are few and come with every message."""
    if not 1 <= len(label) <= MAX_LABEL or not label.isascii() or not label.decode("ascii").isprintable():
        raise DecodeError(
            f"A signature block names its algorithm or key in other than 1 to {MAX_LABEL} printable ASCII."
        )
    return label.decode("ascii")
