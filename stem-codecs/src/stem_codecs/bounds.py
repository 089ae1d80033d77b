"""Bounds that hold before anything is decoded: how many containers, how many bytes. Pure.

A byte of CBOR or MessagePack that opens a container becomes a hundred bytes of Python, so containers
are counted first. The count of bytes that *could* open one is an upper bound at the speed of C and almost
always enough; only data above it is walked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from stem_core.errors import DecodeError, EncodeError
from stem_core.plain import MAX_CONTAINERS

__all__ = ["MAX_EXPANDED", "bytes_of", "check_cbor", "check_expanded", "check_msgpack"]

#: Most bytes a compressed payload may expand to.
MAX_EXPANDED: Final = 4 * 1024 * 1024

Error = type[DecodeError] | type[EncodeError]
_CBOR_LENGTHS: Final = {24: 1, 25: 2, 26: 4, 27: 8}
_CBOR_OTHERS: Final = bytes(each for each in range(256) if not 0x80 <= each <= 0xBB)
_MSGPACK_OTHERS: Final = bytes(
    each for each in range(256) if not (0x80 <= each <= 0x9F or 0xDC <= each <= 0xDF)
)
#: What follows the first byte of a MessagePack item that is no container: (bytes of its length, bytes beside that).
_MSGPACK_SIZES: Final = {
    **dict(zip(range(0xC4, 0xC7), ((1, 0), (2, 0), (4, 0)), strict=True)),  # bin
    **dict(zip(range(0xC7, 0xCA), ((1, 1), (2, 1), (4, 1)), strict=True)),  # ext
    **dict(
        zip(range(0xCA, 0xD4), ((0, size) for size in (4, 8, 1, 2, 4, 8, 1, 2, 4, 8)), strict=True)
    ),  # numbers
    **dict(zip(range(0xD4, 0xD9), ((0, size) for size in (2, 3, 5, 9, 17)), strict=True)),  # fixext
    **dict(zip(range(0xD9, 0xDC), ((1, 0), (2, 0), (4, 0)), strict=True)),  # str
}


def check_cbor(data: bytes, error: Error = DecodeError) -> None:
    """Refuse CBOR of more than :data:`MAX_CONTAINERS` lists and maps.

    :raises DecodeError: (or ``error``) there are more.
    """
    _check(data, _CBOR_OTHERS, _cbor_containers, error)


def check_msgpack(data: bytes, error: Error = DecodeError) -> None:
    """Refuse MessagePack of more than :data:`MAX_CONTAINERS` lists and maps.

    :raises DecodeError: (or ``error``) there are more.
    """
    _check(data, _MSGPACK_OTHERS, _msgpack_containers, error)


def bytes_of(value: object) -> bytes:
    """``value``, when a bytes encoder can take it.

    :raises EncodeError: it is not bytes.
    """
    if not isinstance(value, bytes):
        raise EncodeError(
            f"This encoder takes bytes, not a {type(value).__name__}; put a value encoder before it: 'json+...'"
        )
    return value


def check_expanded(size: int, error: Error = DecodeError) -> None:
    """Refuse a payload of more than :data:`MAX_EXPANDED` bytes.

    :raises DecodeError: (or ``error``) it is larger.
    """
    if size > MAX_EXPANDED:
        raise error(
            f"A payload of more than {MAX_EXPANDED} bytes when decompressed; pass a reference to the data."
        )


def _check(data: bytes, others: bytes, count: Callable[[bytes], int], error: Error) -> None:
    if len(data) <= MAX_CONTAINERS or len(data.translate(None, others)) <= MAX_CONTAINERS:
        return
    if count(data) > MAX_CONTAINERS:
        raise error(f"More than {MAX_CONTAINERS} lists and maps in one value; pass a reference to the data.")


def _cbor_containers(data: bytes) -> int:
    """Containers in ``data``, counted until there are too many. Malformed data is the decoder's to refuse."""
    position, end, found = 0, len(data), 0
    while position < end and found <= MAX_CONTAINERS:
        head = data[position]
        position += 1
        major, extra = head >> 5, head & 31
        if major in {4, 5}:
            found += 1
        size = _CBOR_LENGTHS.get(extra, 0)
        if major in {2, 3}:
            position += int.from_bytes(data[position : position + size], "big") if size else extra
        position += size
    return found


def _msgpack_containers(data: bytes) -> int:
    """As :func:`_cbor_containers`, for MessagePack."""
    position, end, found = 0, len(data), 0
    while position < end and found <= MAX_CONTAINERS:
        head = data[position]
        position += 1
        if 0x80 <= head <= 0x9F:
            found += 1
        elif 0xA0 <= head <= 0xBF:
            position += head & 31
        elif 0xDC <= head <= 0xDF:
            found += 1
            position += 4 if head & 1 else 2
        elif head in _MSGPACK_SIZES:
            size, fixed = _MSGPACK_SIZES[head]
            position += int.from_bytes(data[position : position + size], "big") + size + fixed
    return found
