"""Columns of a batch as binary PostgreSQL arrays, packed in one pass.

psycopg's own list dumper walks every item through Python classes; a batch of two hundred rows with
twenty columns is four thousand items, so the time spent there would be most of a commit. A column is a
list of one of the types below; :func:`teach` lets a cursor send it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from psycopg.abc import AdaptContext
from psycopg.adapt import Dumper
from psycopg.pq import Format

__all__ = ["Bigints", "Blobs", "Bools", "Floats", "Instants", "Smallints", "Texts", "teach"]

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)  # PostgreSQL counts microseconds from here
_MICROSECOND = timedelta(microseconds=1)
_NULL = b"\xff\xff\xff\xff"


class Texts(list["str | None"]):
    """``text[]``."""


class Blobs(list["bytes | None"]):
    """``bytea[]``."""


class Bigints(list[int]):
    """``bigint[]``."""


class Smallints(list[int]):
    """``smallint[]``."""


class Floats(list["float | None"]):
    """``float8[]``."""


class Bools(list[bool]):
    """``boolean[]``."""


class Instants(list["datetime | None"]):
    """``timestamptz[]`` of aware datetimes."""


def _array(oid: int, items: Iterable[bytes | None], length: int) -> bytes:
    """An array of one dimension in the wire format of ``array_recv``."""
    if not length:
        return struct.pack("!iii", 0, 0, oid)
    parts = [b""]
    nulls = 0
    for item in items:
        if item is None:
            nulls = 1
            parts.append(_NULL)
        else:
            parts.append(len(item).to_bytes(4, "big"))
            parts.append(item)
    parts[0] = struct.pack("!iiiii", 1, nulls, oid, length, 1)
    return b"".join(parts)


class _ArrayDumper(Dumper):
    format = Format.BINARY
    item_oid: ClassVar[int]

    def dump(self, obj: Any) -> bytes:
        return _array(self.item_oid, self.items(obj), len(obj))

    def items(self, column: Any) -> Iterable[bytes | None]:
        raise NotImplementedError


class _TextsDumper(_ArrayDumper):
    oid, item_oid = 1009, 25

    def items(self, column: Texts) -> Iterable[bytes | None]:
        return [None if item is None else item.encode() for item in column]


class _BlobsDumper(_ArrayDumper):
    oid, item_oid = 1001, 17

    def items(self, column: Blobs) -> Iterable[bytes | None]:
        return column


class _BigintsDumper(_ArrayDumper):
    oid, item_oid = 1016, 20

    def items(self, column: Bigints) -> Iterable[bytes | None]:
        pack = struct.Struct("!q").pack
        return [pack(item) for item in column]


class _SmallintsDumper(_ArrayDumper):
    oid, item_oid = 1005, 21

    def items(self, column: Smallints) -> Iterable[bytes | None]:
        pack = struct.Struct("!h").pack
        return [pack(item) for item in column]


class _FloatsDumper(_ArrayDumper):
    oid, item_oid = 1022, 701

    def items(self, column: Floats) -> Iterable[bytes | None]:
        pack = struct.Struct("!d").pack
        return [None if item is None else pack(item) for item in column]


class _BoolsDumper(_ArrayDumper):
    oid, item_oid = 1000, 16

    def items(self, column: Bools) -> Iterable[bytes | None]:
        return [b"\x01" if item else b"\x00" for item in column]


class _InstantsDumper(_ArrayDumper):
    oid, item_oid = 1185, 1184

    def items(self, column: Instants) -> Iterable[bytes | None]:
        pack = struct.Struct("!q").pack
        return [None if item is None else pack((item - _EPOCH) // _MICROSECOND) for item in column]


def teach(context: AdaptContext) -> None:
    """Let a connection or a cursor send columns."""
    adapters = context.adapters
    adapters.register_dumper(Texts, _TextsDumper)
    adapters.register_dumper(Blobs, _BlobsDumper)
    adapters.register_dumper(Bigints, _BigintsDumper)
    adapters.register_dumper(Smallints, _SmallintsDumper)
    adapters.register_dumper(Floats, _FloatsDumper)
    adapters.register_dumper(Bools, _BoolsDumper)
    adapters.register_dumper(Instants, _InstantsDumper)
