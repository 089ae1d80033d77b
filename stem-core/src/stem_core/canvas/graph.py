"""Chains, groups and chords as frozen trees, and their expansion into tasks and groups. Pure.

Everything larger than a link is one primitive, the *group*: members whose outcomes are counted, and a
callback published when they are complete. So

- a chain is one-member groups, the callback of each being the next step;
- a group inside a chain is a chord: its members report to one group, the next step is the callback;
- a chain in a member's place reports through its last task; a group there through ``stem.collect``.

Ids are made of the graph's id, so that submitting a graph again publishes nothing twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from stem_core.envelope import Input
from stem_core.names import COLLECT_TASK
from stem_core.options import UNSET, TaskOptions
from stem_core.signature import Signature

__all__ = [
    "Chain",
    "Chord",
    "Graph",
    "Group",
    "Node",
    "PlannedGroup",
    "PlannedTask",
    "chain",
    "chord",
    "expand",
    "group",
    "queue_of",
]

R = TypeVar("R")


class Chain(msgspec.Struct, Generic[R], frozen=True):
    """Steps one after another; each gets the result of the one before as its first argument."""

    steps: tuple[Any, ...]


class Group(msgspec.Struct, Generic[R], frozen=True):
    """Members side by side; the results in this order."""

    members: tuple[Any, ...]


class Chord(msgspec.Struct, Generic[R], frozen=True):
    """A group, and what runs once with all its results."""

    body: Group[Any]
    callback: Any


Node = Signature[Any] | Chain[Any] | Group[Any] | Chord[Any]


def chain(steps: Iterable[Node]) -> Chain[Any]:
    """A chain as a value, to be put inside another node.

    :raises ValueError: there is no step.
    """
    flat: list[Node] = []
    for step in _nodes("chain", steps):
        flat += step.steps if isinstance(step, Chain) else (step,)
    if not flat:
        raise ValueError("A chain needs at least one step")
    return Chain(tuple(map(_node, flat)))


def group(members: Iterable[Signature[R] | Chain[R] | Group[Any] | Chord[R]]) -> Group[R]:
    """A group as a value, to be put inside another node."""
    return Group(tuple(map(_node, _nodes("group", members))))


def chord(body: Iterable[Node] | Group[Any], callback: Signature[R] | Chain[R] | Chord[R]) -> Chord[R]:
    """A chord as a value, to be put inside another node."""
    return Chord(body if isinstance(body, Group) else group(body), _node(callback))


class PlannedTask(msgspec.Struct, frozen=True, kw_only=True):
    """One task of a graph: where its outcome goes, and where its input comes from."""

    id: str
    signature: Signature[Any]
    group: str | None
    input: Input | None


class PlannedGroup(msgspec.Struct, frozen=True, kw_only=True):
    """One group to be created before anything is published."""

    id: str
    members: tuple[str, ...]
    callback: tuple[PlannedTask, ...] = ()


class Graph(msgspec.Struct, frozen=True, kw_only=True):
    """A node made concrete: ``starts`` are published at once, ``outputs`` are the tasks that hold its results."""

    id: str
    starts: tuple[PlannedTask, ...]
    groups: tuple[PlannedGroup, ...]
    outputs: tuple[str, ...]
    results: str | None
    """The group that counts the outputs, when the node is a group."""


def expand(node: Node, id: str) -> Graph:
    """The tasks and groups of ``node``.

    :raises TypeError: a signature's arguments, with the input it will get, do not fit its task.
    """
    return _Expansion(id).graph(_node(node))


def queue_of(signature: Signature[Any]) -> str:
    """The queue a signature asks for, before routing."""
    asked = signature.enqueue_options.queue
    if isinstance(asked, str):
        return asked
    return signature.options.queue if signature.options is not None else "default"


class _Expansion:
    """Hands out ids while a tree is walked; planned groups are kept last first."""

    def __init__(self, id: str) -> None:
        self._id = id
        self._tasks = 0
        self._numbered_groups = 0
        self._groups: list[PlannedGroup] = []

    def graph(self, node: Node) -> Graph:
        results = self._new_group() if isinstance(node, Group) else None
        if isinstance(node, Group):
            starts, outputs = self._members(node, results, None)
            self._groups.append(PlannedGroup(id=str(results), members=outputs))
        else:
            starts, outputs = self._plan(node, None, None)
        return Graph(
            id=self._id,
            starts=starts,
            groups=tuple(reversed(self._groups)),
            outputs=outputs,
            results=results,
        )

    def _plan(
        self, node: Node, outcome_to: str | None, source: Input | None
    ) -> tuple[tuple[PlannedTask, ...], tuple[str, ...]]:
        """(What starts the node, the one task whose outcome is the node's)."""
        if isinstance(node, Signature):
            task = self._task(node, outcome_to, source)
            return (task,), (task.id,)
        if isinstance(node, Group):
            return self._plan(_collected(node), outcome_to, source)
        steps = (node.body, node.callback) if isinstance(node, Chord) else node.steps
        return self._steps(steps, outcome_to, source)

    def _steps(
        self, steps: Sequence[Node], outcome_to: str | None, source: Input | None
    ) -> tuple[tuple[PlannedTask, ...], tuple[str, ...]]:
        first, rest = steps[0], steps[1:]
        if not rest:
            return self._plan(first, outcome_to, source)
        between = self._new_group()
        if isinstance(first, Group) and first.members:
            starts, members = self._members(first, between, source)
            handed_on = Input(kind="all", group=between)
        else:
            starts, members = self._plan(first, between, source)
            handed_on = Input(kind="one", group=between)
        callback, outputs = self._steps(rest, outcome_to, handed_on)
        self._groups.append(PlannedGroup(id=between, members=members, callback=callback))
        return starts, outputs

    def _members(
        self, node: Group[Any], outcome_to: str | None, source: Input | None
    ) -> tuple[tuple[PlannedTask, ...], tuple[str, ...]]:
        starts: list[PlannedTask] = []
        outputs: list[str] = []
        for member in node.members:
            first, output = self._plan(member, outcome_to, source)
            starts += first
            outputs += output
        return tuple(starts), tuple(outputs)

    def _task(self, signature: Signature[Any], outcome_to: str | None, source: Input | None) -> PlannedTask:
        self._tasks += 1
        if source is not None and signature.immutable:
            source = Input(kind="none", group=source.group)
        signature.check(inputs=1 if source is not None and source.kind != "none" else 0)
        return PlannedTask(
            id=f"{self._id}.{self._tasks}", signature=signature, group=outcome_to, input=source
        )

    def _new_group(self) -> str:
        self._numbered_groups += 1
        return f"{self._id}.g{self._numbered_groups}"


def _collected(node: Group[Any]) -> Node:
    """A group that must answer through one task: a chord with ``stem.collect``."""
    if not node.members:
        return Signature(name=COLLECT_TASK, args=([],), immutable=True)
    queue = queue_of(_first_signature(node))
    return Chain((node, Signature(name=COLLECT_TASK, options=TaskOptions(queue=queue))))


def _first_signature(node: Node) -> Signature[Any]:
    while not isinstance(node, Signature):
        if isinstance(node, Chain):
            node = node.steps[0]
        elif isinstance(node, Chord):
            node = node.callback
        elif node.members:
            node = node.members[0]
        else:
            return Signature(name=COLLECT_TASK)
    return node


def _nodes(of: str, given: Any) -> Iterable[Any]:
    if not isinstance(given, Iterable):
        raise TypeError(f"{of}() takes its calls in a list: write {of}([add.s(1, 2), ...]), not {given!r}")
    return given


def _node(value: Any) -> Node:
    if isinstance(value, Signature):
        if value.enqueue_options.task_id is not UNSET:
            raise ValueError(
                f"{value.name!r} has task_id={value.enqueue_options.task_id!r}; ids inside a graph are made from "
                "the graph's id (canvas.group(..., id=...))"
            )
        return value
    if isinstance(value, Chain | Group | Chord):
        return value
    raise TypeError(f"{value!r} is not a signature, chain, group or chord; write task.s(...)")
