"""What a worker knows of its tasks, worked out once per task and not once per run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from stem_core.tasks import Task

__all__ = ["Handler", "Handlers"]


class Resolver(Protocol):
    """The part of the encoder registry that is needed here."""

    @property
    def default_result(self) -> str: ...
    def resolve(self, encoder: Any) -> str: ...
    def chain(self, id: str) -> Any: ...


class Handler:
    """One task, ready to be called."""

    __slots__ = (
        "convert",
        "function",
        "isolation",
        "kind",
        "name",
        "plain",
        "result_encoder",
        "task",
        "wants_context",
    )

    def __init__(self, task: Task[..., Any], encoders: Resolver) -> None:
        self.task = task
        self.name = task.name
        self.function: Callable[..., Any] = task.function
        #: Below decorators: what another process imports by module and qualified name.
        self.plain: Any = inspect.unwrap(task.function)
        self.kind = task.kind
        self.isolation = task.isolation
        self.convert = task.parameters.convert
        self.wants_context = task.parameters.wants_context
        chosen = task.metadata.result_encoder
        #: The chain of encoders of its results unless the envelope names one.
        self.result_encoder = encoders.default_result if chosen is None else encoders.resolve(chosen)
        encoders.chain(self.result_encoder)


class Handlers:
    """The handlers by name. Tasks declared while the worker runs are found as well."""

    def __init__(
        self, tasks: Mapping[str, Task[..., Any]], built_in: Iterable[Task[..., Any]], encoders: Resolver
    ) -> None:
        self._tasks = tasks
        self._encoders = encoders
        self._made = {task.name: Handler(task, encoders) for task in built_in}
        for name in tasks:  # an encoder that is not installed is told now, not at the first result
            self.get(name)

    def get(self, name: str) -> Handler | None:
        """The handler of ``name``, None when there is no such task."""
        made = self._made.get(name)
        if made is None:
            task = self._tasks.get(name)
            if task is not None:
                made = self._made[name] = Handler(task, self._encoders)
        return made

    def names(self) -> frozenset[str]:
        """Every name that can be run here."""
        return frozenset(self._tasks) | frozenset(self._made)
