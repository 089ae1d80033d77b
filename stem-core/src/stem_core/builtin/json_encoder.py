"""The ``json`` encoder: exact and strict, at the speed of msgspec.

Its domain is :mod:`stem_core.plain`, with bytes as base64 text. The quick way costs no walk in Python:
encode, decode, and compare. What comes back equal was plain and exact; everything else (a
tuple, a dataclass, NaN, which msgspec writes as null, a key that is not text) goes through
:func:`~stem_core.plain.to_plain`, which converts it or names the place of the fault.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, Never

import msgspec

from stem_core.errors import DecodeError, EncodeError
from stem_core.plain import MAX_CONTAINERS, MAX_NESTING, check_plain, to_plain
from stem_core.ports.encoder import TaskPayloadEncoder

__all__ = ["JsonEncoder"]

#: Shorter bytes cannot hold an int of more than 64 bits, nor anything else that is out of bounds.
_SHORT: Final = 19
#: One text in JSON, or what is left of one that never ends; linear in its length.
_TEXT: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder().decode
_packed: Final = msgspec.msgpack.Encoder().encode


class JsonEncoder(TaskPayloadEncoder):
    """Values to compact UTF-8 JSON and back to plain data. Dicts keep their order; sets are sorted.

    Decoding is strict JSON (RFC 8259) within the same domain: no duplicate keys, no numbers that
    overflow a float or 64 bits, no lone surrogates, nothing after the value, at most 64 containers deep.
    """

    id = "json"

    def encode(self, value: Any) -> bytes:
        """The bytes of ``value``.

        :raises EncodeError: something in it cannot travel; the message holds the path to it.
        """
        try:
            data = _encode(value)
            if _decode(data) == value and _in_bounds(data, value):
                return data
        except Exception:  # noqa: BLE001, S110 (anything, also from a value's own __eq__: to_plain says what)
            pass
        return _encode_slowly(value)

    def decode(self, data: bytes) -> object:
        """The plain data in ``data``.

        :raises DecodeError: it is not JSON this encoder could have made.
        """
        if len(data) > _SHORT and _containers(data) > MAX_CONTAINERS:
            raise DecodeError(
                f"More than {MAX_CONTAINERS} lists and maps in one value; pass a reference to the data."
            )
        try:
            value = _decode(data)
            # Bytes that come back as they were hold no duplicate key and no number that lost digits.
            if _encode(value) == data and _in_bounds(data, value):
                return value
            return _slowly(data)
        except DecodeError:
            raise
        except (ValueError, TypeError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
            raise DecodeError(f"These bytes are not JSON: {error}") from error


def _encode_slowly(value: Any) -> bytes:
    """What is not plain as it is, or not surely within the bounds."""
    try:
        data = _encode(to_plain(value, binary=False))
    except EncodeError:
        raise
    except Exception as error:
        raise EncodeError(f"$: the value cannot be encoded as JSON: {error}") from error
    if _containers(data) > MAX_CONTAINERS:
        raise EncodeError(f"$: more than {MAX_CONTAINERS} lists and maps; pass a reference to the data.")
    return data


def _in_bounds(data: bytes, value: object) -> bool:
    """Whether plain ``value``, encoded as ``data``, keeps to 64-bit ints, the depth and the number of containers; cheap
    bounds first.
    """
    if len(data) <= _SHORT:
        return True
    _packed(value)  # OverflowError for an int of more than 64 bits
    if data.count(b"[") + data.count(b"{") <= MAX_NESTING:
        return True
    return _containers(data) <= MAX_CONTAINERS and _is_shallow(value)


def _containers(data: bytes) -> int:
    """Lists and maps in ``data``: the brackets, and only when those are too many the ones outside texts."""
    upper = data.count(b"[") + data.count(b"{")
    if upper <= MAX_CONTAINERS:
        return upper
    bare = _TEXT.sub(b"", data)
    return bare.count(b"[") + bare.count(b"{")


def _is_shallow(value: object) -> bool:
    level: list[Any] = [value] if isinstance(value, list | dict) else []
    for _ in range(MAX_NESTING):
        level = [
            item
            for container in level
            for item in (container.values() if type(container) is dict else container)
            if type(item) is list or type(item) is dict
        ]
        if not level:
            return True
    return False


def _slowly(data: bytes) -> object:
    """Valid JSON in another spelling: white space, escapes, ``1E5``; or with a fault to be named."""
    value = json.loads(bytes(data).decode(), object_pairs_hook=_unique, parse_constant=_refuse)
    check_plain(value, binary=False)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise DecodeError(f"These bytes are not JSON of ours: the key {twice!r} is there twice")
    return result


def _refuse(constant: str) -> Never:
    raise DecodeError(f"These bytes are not JSON: {constant} is not a number")
