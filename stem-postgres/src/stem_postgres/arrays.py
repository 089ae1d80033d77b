"""Rows as parameters: the columns of a batch as binary PostgreSQL arrays, packed in one pass, or one row as plain values.

psycopg's own list dumper walks every item through Python classes; a batch of two hundred rows with
twenty columns is four thousand items, so the time spent there would be most of a commit. A column is a
list of one of the types below; :func:`teach` lets a cursor send it. What is the same for all rows, everything where
there is one row, goes as a plain value: thirty arrays would cost more than all the rest of a lone enqueue, and half of
what the server needs for a status is taking arrays of one thing apart.
"""

# ruff: noqa: S608 - statements are put together from constants of ours; values travel as parameters

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, ClassVar, NamedTuple

from psycopg.abc import AdaptContext
from psycopg.adapt import Dumper
from psycopg.pq import Format

__all__ = [
    "Bigints",
    "Blobs",
    "Bools",
    "Floats",
    "Instants",
    "Kinds",
    "Plain",
    "Rows",
    "Smallints",
    "Texts",
    "relation",
    "rows",
    "teach",
]

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)  # PostgreSQL counts microseconds from here
_MICROSECOND = timedelta(microseconds=1)
_NULL = b"\xff\xff\xff\xff"


class Texts(list["str | None"]):
    """``text[]``."""

    of = "text"


class Blobs(list["bytes | None"]):
    """``bytea[]``."""

    of = "bytea"


class Bigints(list[int]):
    """``bigint[]``."""

    of = "bigint"


class Smallints(list[int]):
    """``smallint[]``."""

    of = "smallint"


class Floats(list["float | None"]):
    """``float8[]``."""

    of = "float8"


class Bools(list[bool]):
    """``boolean[]``."""

    of = "boolean"


class Instants(list["datetime | None"]):
    """``timestamptz[]`` of aware datetimes."""

    of = "timestamptz"


#: The columns of a relation, in order, by name.
Kinds = Mapping[
    str,
    type[Texts] | type[Blobs] | type[Bigints] | type[Smallints] | type[Floats] | type[Bools] | type[Instants],
]


#: Names of the columns that are sent as one plain value for all rows.
Plain = frozenset[str]


class Rows(NamedTuple):
    """Rows as parameters, and the ``plain`` ones among their columns, which the statement has to know."""

    plain: Plain
    parameters: dict[str, Any]


def rows(prefix: str, kinds: Kinds, values: Mapping[str, Sequence[Any]], alike: Plain) -> Rows:
    """Rows of :func:`relation`, at least one, from their columns. Plain is everything of a single row, and of more
    the columns ``alike``, which usually do, where each does say one thing: so statements have few shapes.
    """
    plain = Plain()
    if len(next(iter(values.values()))) == 1:
        plain = Plain(kinds)
    elif all(values[name].count(values[name][0]) == len(values[name]) for name in alike):
        plain = alike
    return Rows(
        plain,
        {
            prefix + name: column[0] if name in plain else kinds[name](column)
            for name, column in values.items()
        },
    )


def relation(prefix: str, kinds: Kinds, alias: str, plain: Plain) -> str:
    """What to write after ``from``: the parameters of :func:`rows` as a relation called ``alias``."""
    listed = [name for name in kinds if name not in plain]
    chosen = ", ".join(
        f"%({prefix}{name})s::{kind.of} as {name}" if name in plain else f"x.{name}"
        for name, kind in kinds.items()
    )
    if not listed:
        return f"(select {chosen}) as {alias}"
    arrays = ", ".join(f"%({prefix}{name})s" for name in listed)
    return f"(select {chosen} from unnest({arrays}) as x ({', '.join(listed)})) as {alias}"


def _array(oid: int, parts: list[bytes], nulls: bool) -> bytes:
    """An array of one dimension in the wire format of ``array_recv``; each part is a length and its bytes."""
    if not parts:
        return struct.pack("!iii", 0, 0, oid)
    return struct.pack("!iiiii", 1, nulls, oid, len(parts), 1) + b"".join(parts)


class _ArrayDumper(Dumper):
    """Items of any size, or of one size with ``item`` packing the length before the value."""

    format = Format.BINARY
    item_oid: ClassVar[int]

    def dump(self, obj: Any) -> bytes:
        missing = obj.count(None)
        if missing == len(obj):
            return _array(self.item_oid, [_NULL] * missing, True)
        if missing:
            parts = [_NULL if item is None else self.item(item) for item in obj]
        elif obj.count(obj[0]) == len(
            obj
        ):  # most columns of a batch say one thing: its queue, its state, its ttl
            parts = [self.item(obj[0])] * len(obj)
        else:
            item = self.item
            parts = [item(each) for each in obj]
        return _array(self.item_oid, parts, missing > 0)

    @staticmethod
    def item(value: Any) -> bytes:
        raise NotImplementedError


class _TextsDumper(_ArrayDumper):
    oid, item_oid = 1009, 25

    @staticmethod
    def item(value: str) -> bytes:
        data = value.encode()
        return len(data).to_bytes(4, "big") + data


class _BlobsDumper(_ArrayDumper):
    oid, item_oid = 1001, 17

    @staticmethod
    def item(value: bytes) -> bytes:
        return len(value).to_bytes(4, "big") + value


class _BigintsDumper(_ArrayDumper):
    oid, item_oid = 1016, 20
    item = staticmethod(partial(struct.Struct("!iq").pack, 8))


class _SmallintsDumper(_ArrayDumper):
    oid, item_oid = 1005, 21
    item = staticmethod(partial(struct.Struct("!ih").pack, 2))


class _FloatsDumper(_ArrayDumper):
    oid, item_oid = 1022, 701
    item = staticmethod(partial(struct.Struct("!id").pack, 8))


class _BoolsDumper(_ArrayDumper):
    oid, item_oid = 1000, 16
    item = staticmethod(partial(struct.Struct("!i?").pack, 1))


class _InstantsDumper(_ArrayDumper):
    oid, item_oid = 1185, 1184

    @staticmethod
    def item(value: datetime) -> bytes:
        return _INSTANT(8, (value - _EPOCH) // _MICROSECOND)


_INSTANT = struct.Struct("!iq").pack


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
