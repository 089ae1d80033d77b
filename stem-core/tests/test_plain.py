"""stem_core.plain: what travels, in which form, and where a fault is."""

from __future__ import annotations

import dataclasses
import enum
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

import attrs
import msgspec
import pydantic
import pytest

from stem_core.errors import DecodeError, EncodeError
from stem_core.plain import MAX_NESTING, check_plain, in_arguments, to_plain


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 9


class Point(NamedTuple):
    x: int
    y: int


@dataclasses.dataclass
class Line:
    price: Decimal
    tags: frozenset[str]


class Order(msgspec.Struct, tag="order", rename="camel"):
    order_lines: list[Line]
    note: str | msgspec.UnsetType = msgspec.UNSET


class Pair(msgspec.Struct, array_like=True, tag="pair"):
    left: int
    right: int


@attrs.define
class Box:
    label: str
    size: Point


class Person(pydantic.BaseModel):
    name: str
    born: date


ID = UUID("018f8e2c-7a3b-7c4d-8e5f-0123456789ab")
MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "type"),
    [
        (MOMENT, datetime),
        (date(2026, 1, 2), date),
        (time(1, 2, 3), time),
        (timedelta(days=-1, seconds=2.5), timedelta),
        (ID, UUID),
        (Decimal("10.50"), Decimal),
        (Colour.RED, Colour),
        (Level.HIGH, Level),
        (Point(1, 2), Point),
        (Line(Decimal("1.10"), frozenset({"a", "b"})), Line),
        (Order([Line(Decimal(1), frozenset())]), Order),
        (Order([], note="x"), Order),
        (Pair(1, 2), Pair),
        (Box("b", Point(3, 4)), Box),
        ({1, 2, 3}, set[int]),
        ((1, "a"), tuple[int, str]),
        ({ID: 1}, dict[UUID, int]),
        ({5: "x", -1: "y"}, dict[int, str]),
        ({Colour.RED: 1}, dict[Colour, int]),
        (b"\x00\xff", bytes),
        (bytearray(b"ab"), bytearray),
    ],
)
@pytest.mark.parametrize("binary", [False, True])
def test_rich_values_come_back_by_their_declared_type(value: object, type: Any, binary: bool) -> None:
    data = to_plain(value, binary=binary)
    check_plain(data, binary=binary)
    back = msgspec.convert(data, type, str_keys=True)
    assert back == value
    assert back.__class__ is value.__class__


def test_a_pydantic_model_becomes_its_fields() -> None:
    data = to_plain(Person(name="Ada", born=date(1815, 12, 10)), binary=False)
    assert data == {"name": "Ada", "born": "1815-12-10"}
    assert Person.model_validate(data).born.year == 1815


def test_a_set_is_the_same_bytes_whatever_its_order() -> None:
    letters = [chr(97 + index) for index in range(20)]
    backwards = letters[::-1]
    assert to_plain(set(letters), binary=False) == to_plain(set(backwards), binary=False)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            [[], {"order": {"lines": [0, 0, 0, {"price": float("nan")}]}}],
            r"\$\[1\].order.lines\[3\].price: nan",
        ),
        ([object()], r"\$\[0\]: a value of type object cannot travel"),
        ({"n": 2**64}, r"\$.n: an int of more than 64 bits"),
        ({"n": -(2**63) - 1}, "64 bits"),
        ("\ud800", r"\$: text with a lone surrogate"),
        ({"\udfff": 1}, "surrogate"),
        (float("inf"), "finite"),
        (Decimal("NaN"), "finite"),
        ({1: "a", "1": "b"}, "two keys"),
        ({(1, 2): 3}, "cannot be the key"),
        ({True: 3}, "cannot be the key"),
        ({None: 3}, "cannot be the key"),
        ([Order], "cannot travel"),
        ([Line(Decimal(1), frozenset({float("-inf")}))], r"\$\[0\].tags\[0\]: -inf"),  # type: ignore[arg-type]
        (lambda: None, "cannot travel"),
    ],
)
def test_what_cannot_travel_says_where_it_is(value: object, message: str) -> None:
    with pytest.raises(EncodeError, match=message):
        to_plain(value, binary=True)


def nested(depth: int) -> Any:
    value: Any = 1
    for index in range(depth):
        value = [value] if index % 2 else {"a": value}
    return value


def test_nesting_is_bounded_and_a_cycle_is_refused() -> None:
    assert to_plain(nested(MAX_NESTING), binary=False) == nested(MAX_NESTING)
    check_plain(nested(MAX_NESTING), binary=False)
    with pytest.raises(EncodeError, match="nested more than 64"):
        to_plain(nested(MAX_NESTING + 1), binary=False)
    with pytest.raises(DecodeError, match="nested more than 64"):
        check_plain(nested(MAX_NESTING + 1), binary=False)
    cycle: list[Any] = []
    cycle.append(cycle)
    with pytest.raises(EncodeError, match="nested"):
        to_plain(cycle, binary=False)


@pytest.mark.parametrize(
    "value",
    [(1,), {1}, {1: 2}, {"a": [float("nan")]}, b"", 2**70, "\ud800", {"\ud800": 1}, MOMENT, object()],
)
def test_decoded_data_that_is_not_plain_is_refused(value: object) -> None:
    with pytest.raises(DecodeError, match=r"^\$"):
        check_plain([value], binary=False)


def test_bytes_are_plain_only_where_the_format_has_them() -> None:
    check_plain([b"x"], binary=True)
    with pytest.raises(DecodeError):
        check_plain([b"x"], binary=False)
    assert to_plain([b"x"], binary=True) == [b"x"]
    assert to_plain([b"x"], binary=False) == ["eA=="]


def test_a_path_in_arguments_is_as_the_caller_knows_it() -> None:
    for value, path in (
        ([[], {"order": {"lines": [{"price": float("nan")}]}}], r"args.order.lines\[0\].price: nan"),
        ([[1, {"x": object()}], {}], r"args\[1\].x: a value of type object"),
    ):
        with pytest.raises(EncodeError) as caught:
            to_plain(value, binary=False)
        with pytest.raises(EncodeError, match=f"^{path}.*of task 'buy'"):
            raise in_arguments(caught.value, "buy")
    other = EncodeError("Encoder 'rot' failed")
    assert in_arguments(other, "buy") is other
