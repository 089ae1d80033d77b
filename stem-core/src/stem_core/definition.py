"""Typed tasks for producers that do not have the handler's code."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, TypeVar, get_origin

from stem_core.handles import TaskHandle
from stem_core.options import Duration, TaskMetadata, TaskOptions, check_name
from stem_core.signature import Signature
from stem_core.tasks import Enqueuer, TaskEnqueueBuilder

__all__ = ["TaskDefinition"]

A = TypeVar("A")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class TaskDefinition(Generic[A, R]):
    """What a producer knows of a task: its name, its one argument's type and its result's.

    The payload travels as the one positional argument; the handler may annotate it with its own type of
    the same shape.
    """

    name: str
    args: type[A]
    result: type[R]
    options: TaskOptions = field(default_factory=TaskOptions, kw_only=True)
    metadata: TaskMetadata = field(default_factory=TaskMetadata, kw_only=True)

    def __post_init__(self) -> None:
        check_name(self.name, "task name")

    async def enqueue(self, stem: Enqueuer, payload: A) -> TaskHandle[R]:
        """Publish a call.

        :raises TypeError: ``payload`` is not of the type declared; nothing was published.
        """
        return await stem.enqueue_call(self.to_signature(payload))

    def enqueue_sync(self, stem: Enqueuer, payload: A) -> TaskHandle[R]:
        """:meth:`enqueue` from code without an event loop."""
        return stem.enqueue_call_sync(self.to_signature(payload))

    async def enqueue_and_wait(self, stem: Enqueuer, payload: A, *, timeout: Duration = 30.0) -> R:
        """Publish a call and wait for its result.

        :raises TaskFailed: the task failed.
        :raises TaskTimeout: no result after ``timeout`` seconds.
        """
        return await (await self.enqueue(stem, payload)).result(timeout=timeout)

    def enqueue_and_wait_sync(self, stem: Enqueuer, payload: A, *, timeout: Duration = 30.0) -> R:
        """:meth:`enqueue_and_wait` from code without an event loop."""
        return self.enqueue_sync(stem, payload).result_sync(timeout=timeout)

    def to_signature(self, payload: A) -> Signature[R]:
        """The call as a value, for ``enqueue_many``, links and canvas.

        :raises TypeError: ``payload`` is not of the type declared.
        """
        return self._signature((self._checked(payload),))

    def s(self, *args: Any) -> Signature[R]:
        """A signature that takes its payload, or more arguments, from what ran before it."""
        return self._signature(args)

    def builder(self, payload: A) -> TaskEnqueueBuilder[R]:
        """A call to be completed step by step; ends in ``enqueue_with(stem)``."""
        return TaskEnqueueBuilder(self.to_signature(payload))

    def _signature(self, args: tuple[Any, ...]) -> Signature[R]:
        return Signature(
            name=self.name,
            args=args,
            options=self.options,
            metadata=self.metadata,
            result_type=self.result,
        )

    def _checked(self, payload: A) -> A:
        if not _fits(payload, self.args):
            kind = getattr(self.args, "__name__", str(self.args))
            raise TypeError(f"{self.name!r} takes a {kind}, not {type(payload).__name__} ({payload!r})")
        return payload


def _fits(payload: object, kind: Any) -> bool:
    """Whether ``payload`` may be a ``kind``, as far as that can be told of a value; the handler tells the rest."""
    while get_origin(kind) is Annotated:
        kind = kind.__origin__
    if kind is float:
        kind = int | float  # as for type checkers
    for each in (kind, get_origin(kind)):
        try:
            return isinstance(payload, each)
        except TypeError:  # nothing is an instance of Any, a TypedDict, a protocol, or list[int]
            continue
    return True
