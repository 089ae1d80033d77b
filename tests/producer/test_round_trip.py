"""Random values survive enqueue -> handler, by annotation, through every value encoder."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple, TypedDict
from uuid import UUID

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stem_core import Stem, TaskState
from stem_core.ports.encoder import EncodeContext
from stem_core.status import StatusUpdate

ENCODERS = ("json", "cbor", "msgpack")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 9


@dataclass
class Line:
    price: Decimal
    colours: list[Colour] = field(default_factory=list)


class Shape(msgspec.Struct):
    sides: int
    name: str | None = None


@attrs.define
class Box:
    shape: Shape
    lines: tuple[Line, ...]


class Entry(TypedDict):
    when: datetime
    who: UUID


class Pair(NamedTuple):
    left: int
    right: bytes


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
numbers = st.integers(-(2**63), 2**63 - 1)
instants = st.datetimes(timezones=st.just(UTC), min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30))  # noqa: DTZ001
decimals = st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9)
colours = st.sampled_from(Colour)
lines = st.builds(Line, price=decimals, colours=st.lists(colours, max_size=3))
shapes = st.builds(Shape, sides=numbers, name=st.none() | text)

#: The annotation of a parameter, and values for it.
KINDS: dict[Any, st.SearchStrategy[Any]] = {
    int: numbers,
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    str: text,
    bytes: st.binary(max_size=20),
    datetime: instants,
    date: st.dates(),
    timedelta: st.timedeltas(min_value=timedelta(days=-10_000), max_value=timedelta(days=10_000)),
    UUID: st.uuids(),
    Decimal: decimals,
    Colour: colours,
    Level: st.sampled_from(Level),
    Line: lines,
    Shape: shapes,
    Box: st.builds(Box, shape=shapes, lines=st.lists(lines, max_size=2).map(tuple)),
    Entry: st.fixed_dictionaries({"when": instants, "who": st.uuids()}),
    Pair: st.builds(Pair, left=numbers, right=st.binary(max_size=9)),
    set[int]: st.sets(numbers, max_size=5),
    frozenset[str]: st.frozensets(text, max_size=5),
    tuple[int, str]: st.tuples(numbers, text),
    list[Shape | None]: st.lists(shapes | st.none(), max_size=3),
    dict[str, list[bytes]]: st.dictionaries(text, st.lists(st.binary(max_size=5), max_size=3), max_size=3),
    Mapping[int, str]: st.dictionaries(st.integers(-99, 99), text, max_size=3),
    int | str | None: numbers | text | st.none(),
    Any: st.recursive(
        st.none() | st.booleans() | numbers | text | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
        max_leaves=8,
    ),
}


@st.composite
def calls(draw: st.DrawFn) -> tuple[Any, list[Any], dict[str, Any]]:
    """A function with random annotations, and arguments that fit: by position, by name, or left out."""
    kinds = draw(st.lists(st.sampled_from(list(KINDS)), min_size=1, max_size=5))
    by_position = draw(st.integers(0, len(kinds)))
    values = [draw(KINDS[kind]) for kind in kinds]

    def handler(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args, kwargs

    import inspect

    names = [f"p{i}" for i in range(len(kinds))]
    kind_of = inspect.Parameter
    handler.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            kind_of(name, kind_of.POSITIONAL_OR_KEYWORD, annotation=kind)
            for name, kind in zip(names, kinds, strict=True)
        ]
    )
    handler.__annotations__ = {**dict(zip(names, kinds, strict=True)), "return": kinds[0]}
    named = dict(list(zip(names, values, strict=True))[by_position:])
    return handler, values[:by_position], named


@pytest.mark.parametrize("encoder", ENCODERS)
@given(call=calls())
def test_values_survive(encoder: str, call: tuple[Any, list[Any], dict[str, Any]]) -> None:
    handler, args, kwargs = call
    asyncio.run(check(encoder, handler, args, kwargs))


async def check(encoder: str, handler: Any, args: list[Any], kwargs: dict[str, Any]) -> None:
    async with Stem("memory://", args_encoder=encoder, result_encoder=encoder) as stem:
        task = stem.task(name="work")(handler)
        handle = await task.enqueue(*args, **kwargs)
        (delivery,) = await stem.broker.receive(["default"], limit=1, lease=30, wait=0)
        envelope = stem.wiring.unseal(delivery.message.sealed)
        context = EncodeContext(purpose="args", namespace="stem", id=envelope.id, chain=envelope.encoder)
        positional, keywords = stem.encoders.decode(envelope.encoder, envelope.args, context)  # type: ignore[misc]
        got_args, got_kwargs = task.parameters.convert(positional, keywords)
        assert handler(*got_args, **got_kwargs) == (tuple(args), kwargs)
        value = (args or list(kwargs.values()))[0]
        context = EncodeContext(purpose="result", namespace="stem", id=envelope.id, chain=encoder)
        payload = stem.encoders.encode(encoder, value, context)
        assert stem.backend is not None
        await stem.backend.record(
            [StatusUpdate(id=envelope.id, state=TaskState.SUCCEEDED, payload=payload, encoder=encoder)]
        )
        assert await handle.result(timeout=1) == value
