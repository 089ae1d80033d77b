"""Definitions: what a payload may be, and calls from code without a loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, Optional, Protocol, TypedDict, TypeVar

import pytest

from stem_core import StemApp, TaskDefinition

T = TypeVar("T")


class Shape(TypedDict):
    sides: int


class HasSides(Protocol):
    sides: int


@dataclass
class Box(Generic[T]):
    content: T


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (int | None, 5),
        (int | None, None),
        (Optional[int], None),  # noqa: UP045 - the other spelling
        (Any, 5),
        (float, 5),
        (list[int], [1]),
        (Literal["a"], "a"),
        (Annotated[int, "sides"], 5),
        (Shape, {"sides": 3}),
        (HasSides, {"sides": 3}),
        (Box[int], Box(1)),
        (None, None),
    ],
)
def test_payloads_of_the_declared_type_are_taken(kind: Any, payload: Any) -> None:
    assert TaskDefinition("a", args=kind, result=int).to_signature(payload).args == (payload,)


@pytest.mark.parametrize(
    ("kind", "payload"), [(int | None, "5"), (int, 5.5), (list[int], (1,)), (Box[int], 1), (str, 5)]
)
def test_others_are_refused_at_the_call(kind: Any, payload: Any) -> None:
    with pytest.raises(TypeError, match="'a' takes a"):
        TaskDefinition("a", args=kind, result=int).to_signature(payload)


def test_definitions_and_builders_work_without_a_loop() -> None:
    double = TaskDefinition("double", args=int, result=int)
    app = StemApp.in_memory()
    app.task(name="double")(lambda x: 2 * x)
    assert double.enqueue_and_wait_sync(app, 4, timeout=10) == 8
    assert double.builder(5).priority(3).enqueue_with_sync(app).result_sync(timeout=10) == 10
    app.close_sync()
