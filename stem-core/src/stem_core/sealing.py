"""Envelope to sealed bytes and back: encode, sign, verify, decode. Pure.

Version 1, integers big-endian:

    "STM" 0x01 | signatures u8 | inner length u32 | signature block ... | inner

A signature block is: length u8, algorithm | length u8, key id | length u16, signature. Inner is a
MessagePack map of the envelope's fields by name (fields at their default are left out). Signatures cover
``pre_authentication_encoding(ENVELOPE_PURPOSE, algorithm, key id, namespace, inner)``: these bytes
exactly, so verification comes before parsing and nothing is ever re-encoded to check it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

import msgspec

from stem_core.envelope import Envelope
from stem_core.errors import DecodeError, PayloadTooLarge, SignatureInvalid
from stem_core.ports.signer import PayloadSigner, SignatureBlock

__all__ = ["ENVELOPE_PURPOSE", "MAX_SEALED", "Sealed", "open_sealed", "seal", "unpack"]

ENVELOPE_PURPOSE: Final = "stem-envelope-v1"
MAX_SEALED: Final = 262_144
MAX_SIGNATURES: Final = 2
MAX_NESTING: Final = 64

_MAGIC: Final = b"STM\x01"
_HEAD: Final = struct.Struct("!4sBI")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Envelope).decode


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
) -> bytes:
    """The sealed bytes of ``envelope``, signed when there is a signer.

    :raises PayloadTooLarge: more than ``limit`` bytes.
    :raises ConfigurationError: the signer has no key for this queue or task.
    """
    inner = _encode(envelope)
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


def pack(signatures: Sequence[SignatureBlock], inner: bytes) -> bytes:
    """Signature blocks and inner bytes as sealed bytes."""
    if not 1 <= len(signatures) <= MAX_SIGNATURES:
        raise ValueError(f"{len(signatures)} signatures; a signer makes 1 or {MAX_SIGNATURES}")
    out = [_HEAD.pack(_MAGIC, len(signatures), len(inner))]
    for block in signatures:
        algorithm, key_id = block.algorithm.encode("ascii"), block.key_id.encode("ascii")
        out += (
            len(algorithm).to_bytes(1, "big"),
            algorithm,
            len(key_id).to_bytes(1, "big"),
            key_id,
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
    blocks = []
    for _ in range(count):
        algorithm, position = _take(sealed, position, 1)
        key_id, position = _take(sealed, position, 1)
        signature, position = _take(sealed, position, 2)
        try:
            blocks.append(SignatureBlock(algorithm.decode("ascii"), key_id.decode("ascii"), signature))
        except UnicodeDecodeError:
            raise DecodeError("A signature block names its algorithm or key in other than ASCII.") from None
    if len(sealed) - position != length:
        raise DecodeError(f"The message says {length} bytes of content; {len(sealed) - position} follow.")
    return Sealed(tuple(blocks), sealed[position:])


def open_sealed(
    sealed: bytes,
    *,
    namespace: str,
    signer: PayloadSigner | None = None,
    limit: int = MAX_SEALED,
) -> Envelope:
    """The envelope in ``sealed``: size checked, then verified, then parsed.

    :raises SignatureInvalid: a signer is given and no trusted signature verifies, or its key may not speak for
        the envelope's queue or task.
    :raises DecodeError: these are not sealed bytes, or what they hold is not an envelope.
    """
    if len(sealed) > limit:
        raise DecodeError(f"A message of {len(sealed)} bytes; the limit is {limit}.")
    parts = unpack(sealed)
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

    :raises DecodeError: they are not one.
    """
    try:
        return _decode(inner)
    except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError) as error:
        raise DecodeError(f"The message's content is not an envelope: {error}") from None


def _take(sealed: bytes, position: int, width: int) -> tuple[bytes, int]:
    start = position + width
    end = start + int.from_bytes(sealed[position:start], "big")
    if end > len(sealed) or start > len(sealed):
        raise DecodeError("The message ends inside a signature block.")
    return sealed[start:end], end
