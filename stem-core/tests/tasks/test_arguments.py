"""Binding calls to handlers, and making decoded data what the handler is annotated with."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Optional, TypedDict
from uuid import UUID

import attrs
import msgspec
import pydantic
import pytest

from stem_core.arguments import Parameters, convert
from stem_core.errors import ConfigurationError, DecodeError

if TYPE_CHECKING:
    from somewhere import TaskContext


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Line:
    price: Decimal
    tags: set[str] = dataclasses.field(default_factory=set)


@dataclasses.dataclass
class Order:
    lines: list[Line]


class Point(msgspec.Struct):
    x: int
    y: int = 0


@attrs.define
class Box:
    size: int


class Movie(TypedDict):
    year: int


class Pair(NamedTuple):
    a: int
    b: str


class Model(pydantic.BaseModel):
    count: int


@pytest.mark.parametrize(
    ("kind", "plain", "value"),
    [
        (Order, {"lines": [{"price": "1.50", "tags": ["a"]}]}, Order([Line(Decimal("1.50"), {"a"})])),
        (Point, {"x": 1}, Point(1)),
        (Box, {"size": 3}, Box(3)),
        (Movie, {"year": 1999}, {"year": 1999}),
        (Pair, [1, "b"], Pair(1, "b")),
        (Colour, "red", Colour.RED),
        (datetime, "2024-05-06T07:08:09Z", datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)),
        (datetime, datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, tzinfo=UTC)),
        (date, "2024-05-06", date(2024, 5, 6)),
        (time, "07:08:09", time(7, 8, 9)),
        (timedelta, "PT1.5S", timedelta(seconds=1.5)),
        (UUID, "00000000-0000-0000-0000-000000000001", UUID(int=1)),
        (bytes, "aGk=", b"hi"),
        (bytes, b"hi", b"hi"),
        (frozenset[int], [1, 2], frozenset({1, 2})),
        (tuple[int, str], [1, "a"], (1, "a")),
        (tuple[int, ...], [1, 2], (1, 2)),
        (dict[int, Point], {"1": {"x": 2}}, {1: Point(2)}),
        (Optional[Point], None, None),  # noqa: UP045 - the older spelling is used too
        (int | None, 3, 3),
        (float, 1, 1.0),
        (Literal["a", "b"], "b", "b"),
        (Model, {"count": 2}, Model(count=2)),
        (list[Model], [{"count": 2}], [Model(count=2)]),
        (Point | Box, {"size": 3}, Box(3)),
        (list[Order | Line], [{"price": "2"}], [Line(Decimal(2))]),
        (dict[str, Model | Box], {"k": {"count": 1}}, {"k": Model(count=1)}),
        (tuple[Point | Box, int], [{"size": 3}, 4], (Box(3), 4)),
        (Mapping[str, int], {"a": 1}, {"a": 1}),
        (Sequence[int], [1], [1]),
        (Any, {"as": ["is"]}, {"as": ["is"]}),
        (object, 5, 5),
    ],
)
def test_plain_data_becomes_what_is_annotated(kind: Any, plain: Any, value: Any) -> None:
    made = convert(plain, kind)
    assert made == value
    assert type(made) is type(value)


@pytest.mark.parametrize(
    ("kind", "plain", "path"),
    [
        (Order, {"lines": [{"price": "1"}, {"price": "x"}]}, r"order\.lines\[1\]\.price"),
        (int, "1", "order"),
        (Model, {"count": "many"}, r"Model\.count"),
        (Point | Box, {"size": "big"}, "order"),
        (PurePath, "/a", "order"),
    ],
)
def test_data_that_does_not_fit_is_named_by_its_path(kind: Any, plain: Any, path: str) -> None:
    with pytest.raises(DecodeError, match=path):
        convert(plain, kind, "order")


def test_every_kind_of_parameter_is_converted() -> None:
    def handler(a: Point, /, b: int = 1, *rest: Decimal, c: Colour, **more: set[int]) -> UUID: ...

    parameters = Parameters(handler)
    args, kwargs = parameters.convert([{"x": 1}, 2, "3.5"], {"c": "red", "extra": [1]})
    assert (args, kwargs) == ([Point(1), 2, Decimal("3.5")], {"c": Colour.RED, "extra": {1}})
    assert parameters.result_type is UUID


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((), {}), ((1, 2, 3), {}), ((1,), {"a": 1}), ((1,), {"z": 1}), ((1,), {}), ((1, 2), {"k": 1, "b": 2})],
)
def test_a_call_that_does_not_fit_is_a_type_error_naming_the_handler(args: Any, kwargs: Any) -> None:
    def handler(a: int, b: int = 1, *, k: int) -> None: ...

    with pytest.raises(TypeError, match="handler"):
        Parameters(handler).bind(args, kwargs)


def test_a_call_that_fits_passes() -> None:
    def handler(a: int, b: int = 1, *, k: int = 2) -> None: ...

    parameters = Parameters(handler)
    parameters.bind((1,), {})
    parameters.bind((1, 2), {"k": 1})
    parameters.bind((), {"a": 1})
    parameters.check([], {"b": 1}, inputs=1)
    parameters.check_partial([], {"b": 1})
    with pytest.raises(TypeError):
        parameters.check([1, 2], {}, inputs=1)


def test_only_a_leading_task_context_is_injected() -> None:
    def with_context(ctx: TaskContext, a: int) -> None: ...
    def with_object(value: object) -> None: ...
    def with_any(value: Any) -> None: ...
    def second(a: int, ctx: TaskContext) -> None: ...
    def by_keyword(*, ctx: TaskContext) -> None: ...

    assert Parameters(with_context).wants_context
    assert Parameters(with_context).convert([1], {}) == ([1], {})
    assert not any(Parameters(each).wants_context for each in (with_object, with_any))
    for misplaced in (second, by_keyword):  # nobody would fill it in
        with pytest.raises(ConfigurationError, match="move 'ctx' there"):
            Parameters(misplaced)


def test_an_annotation_need_not_be_hashable() -> None:
    def handler(value: Annotated[int, {"unit": "m"}], times: int) -> None: ...

    assert Parameters(handler).convert([1, 2], {}) == ([1, 2], {})


def test_an_annotation_from_an_enclosing_function_is_found() -> None:
    @dataclasses.dataclass
    class Local:
        x: int

    def handler(value: Local) -> Local: ...

    assert Parameters(handler, {"Local": Local}).convert([{"x": 1}], {}) == ([Local(1)], {})


def test_an_annotation_that_cannot_be_resolved_says_what_to_do() -> None:
    def handler(value: Missing) -> None: ...  # noqa: F821

    with pytest.raises(ConfigurationError, match="TYPE_CHECKING"):
        Parameters(handler).convert([1], {})
