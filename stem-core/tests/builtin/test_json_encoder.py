"""Law 40 and 41 for the JSON encoder."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stem_core.builtin.json_encoder import JsonEncoder
from stem_core.errors import DecodeError, EncodeError

JSON = JsonEncoder()

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=30,
)


def exactly_equal(left: Any, right: Any) -> bool:
    return repr(left) == repr(right)  # tells 1 from 1.0 and True, and 0.0 from -0.0


@given(plain)
def test_law_40_plain_data_comes_back_exactly(value):
    assert exactly_equal(JSON.decode(JSON.encode(value)), value)


@given(plain, plain)
def test_two_values_that_differ_never_encode_the_same(one, other):
    assert exactly_equal(one, other) or JSON.encode(one) != JSON.encode(other)


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 9


class Point(NamedTuple):
    x: int
    y: float


class Item(msgspec.Struct):
    sku: str
    price: Decimal


@dataclass
class Order:
    id: UUID
    at: datetime
    lines: list[Item]
    colour: Colour
    level: Level
    corner: Point
    tags: set[str]
    raw: bytes
    day: date
    span: timedelta
    by_day: dict[date, int]


def test_law_40_declared_types_come_back():
    order = Order(
        UUID(int=7), datetime(2024, 1, 2, 3, 4, 5, 6, tzinfo=UTC), [Item("a", Decimal("1.10"))], Colour.RED, Level.HIGH,
        Point(1, 2.0), {"b", "a"}, b"\x00\xff", date(2024, 1, 2), timedelta(days=-1, microseconds=3), {date(2024, 1, 2): 3},
    )  # fmt: skip
    data = JSON.encode([[order], {"note": None}])
    assert msgspec.convert(JSON.decode(data)[0][0], Order, str_keys=True) == order
    assert JSON.encode((1, (2, None))) == JSON.encode([1, [2, None]]) == b"[1,[2,null]]"


@pytest.mark.parametrize(
    "bad", [math.nan, math.inf, -math.inf, "\ud800", 2**64, -(2**63) - 1, object(), {object(): 1}, 1j]
)
@pytest.mark.parametrize(
    "wrap",
    [
        lambda v: v,
        lambda v: [None, v],
        lambda v: {"a": (v,)},
        lambda v: Point(1, v),
        lambda v: [[{"k": {"null"}}], v],
    ],
)
def test_what_would_not_come_back_is_refused(bad, wrap):
    with pytest.raises(EncodeError, match=r"^\$"):
        JSON.encode(wrap(bad))


def test_the_error_holds_the_path():
    lines = [{"price": 1.0}, {"price": 2.0}, {"price": math.nan}]
    with pytest.raises(EncodeError, match=r"^\$\[1\]\.order\.lines\[2\]\.price: nan is not a finite number"):
        JSON.encode([[], {"order": {"lines": lines}}])
    with pytest.raises(EncodeError, match="'1'"):
        JSON.encode({1: "a", "1": "b"})


class Hostile:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no")

    __hash__ = None  # type: ignore[assignment]


def test_a_values_own_equality_is_not_trusted_to_work():
    with pytest.raises(EncodeError, match="Hostile"):
        JSON.encode([Hostile()])


@pytest.mark.parametrize("open_close", [("[", "]"), ('{"a":', "}")])
def test_nesting_is_bounded_both_ways(open_close):
    opening, closing = open_close

    def nested(depth: int) -> bytes:
        return (opening * (depth - 1) + "[]" + closing * (depth - 1)).encode()

    value = JSON.decode(nested(64))
    assert JSON.encode(value) == nested(64)
    assert JSON.decode(b"[" + b"[1],[1]," * 100 + b"[1]]") is not None
    for depth in (65, 66, 500, 100_000):
        with pytest.raises(DecodeError):
            JSON.decode(nested(depth))
    with pytest.raises(EncodeError, match="64 deep"):
        JSON.encode([value])


@pytest.mark.parametrize(
    "data",
    [
        b"", b" ", b"{", b"nul", b"NaN", b"Infinity", b'{"a":NaN}', b"1e400", b"-1e400", b"[1] x", b"1 2", b'"\\ud800"',
        b'"\xff"', b"\xef\xbb\xbf1", b'{"a":1,"a":1}', b'[{"b":{"a":1, "a" : 2}}]', b"18446744073709551616", b"9" * 5000,
        b"'a'", b"[1,]", b"{1:2}", b"\x00", b'"\x01"', "1".encode("utf-16"), b"[" * 1_000_000, b"0x1", b"01", b"+1",
    ],
)  # fmt: skip
def test_law_41_bytes_not_ours_are_a_decode_error(data):
    with pytest.raises(DecodeError):
        JSON.decode(data)


@given(st.binary(max_size=60) | st.text(alphabet='{}[]",:0123456789.eE-tfn \\u', max_size=40).map(str.encode))
def test_law_41_whatever_they_are(data):
    try:
        value = JSON.decode(data)
    except DecodeError:
        return
    assert exactly_equal(JSON.decode(JSON.encode(value)), value)


def test_other_spellings_are_read():
    assert JSON.decode(b' { "a" : [ 1e2 , "\\u0041\\/" , -0 ] } ') == {"a": [100.0, "A/", 0]}
