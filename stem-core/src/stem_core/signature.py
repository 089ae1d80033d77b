"""A call as a value: what to run, with what, and how; not yet published.

One type serves ``enqueue_many``, ``link``, and canvas. It is frozen: every change is a new value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from stem_core.checks import check_labels
from stem_core.options import TaskEnqueueOptions, TaskMetadata, TaskOptions

__all__ = ["Signature", "TaskCall", "check_call", "keywords_of"]

R = TypeVar("R")

#: Shared by every signature that asks for nothing, so that plans can be cached by identity.
NO_OPTIONS = TaskEnqueueOptions()
_NOTHING: Mapping[str, Any] = {}


class Binds(Protocol):
    """The parameters of a task, as far as a call must be checked against them."""

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any], inputs: int) -> None: ...


class Signature(msgspec.Struct, Generic[R], frozen=True, kw_only=True):
    """A call of the task ``name`` whose result is an ``R``.

    ``options`` replace the task's own; ``enqueue_options`` are of this publish. ``immutable`` takes no input
    from what ran before it. ``parameters`` checks the arguments where the handler is known.
    """

    name: str
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = _NOTHING
    options: TaskOptions | None = None
    enqueue_options: TaskEnqueueOptions = NO_OPTIONS
    headers: Mapping[str, str] = _NOTHING
    meta: Mapping[str, Any] = _NOTHING
    metadata: TaskMetadata | None = None
    immutable: bool = False
    result_type: Any = Any
    parameters: Binds | None = None

    def check(self, inputs: int = 0) -> None:
        """Check the arguments, with ``inputs`` more put first.

        :raises TypeError: they do not fit the handler's parameters, or none's; headers or meta cannot be any.
        """
        if self.headers or self.meta:
            check_labels(self.headers, self.meta)
        if self.parameters is not None:
            self.parameters.check(self.args, self.kwargs, inputs)
        elif self.kwargs:
            keywords_of(self.name, self.kwargs)

    def with_options(self, **changes: Any) -> Signature[R]:
        """The same call with fields of :class:`TaskEnqueueOptions` changed."""
        changed = self.enqueue_options.merged(TaskEnqueueOptions(**changes))
        return msgspec.structs.replace(self, enqueue_options=changed)

    def with_headers(self, headers: Mapping[str, str]) -> Signature[R]:
        """The same call with more headers."""
        check_labels(headers, {})
        return msgspec.structs.replace(self, headers={**self.headers, **headers})

    def with_meta(self, meta: Mapping[str, Any]) -> Signature[R]:
        """The same call with more meta."""
        check_labels({}, meta)
        return msgspec.structs.replace(self, meta={**self.meta, **meta})


def check_call(call: object) -> None:
    """:raises TypeError: ``call`` is none."""
    if not isinstance(call, Signature):
        raise TypeError(f"{call!r} is not a call; write task.call(...) or Signature(name=...)")


def keywords_of(name: str, args: Mapping[Any, Any]) -> Mapping[str, Any]:
    """The keyword arguments of a call of ``name``.

    :raises TypeError: a key is no text.
    """
    try:
        return dict(**args)
    except TypeError:
        wrong = next((each for each in args if not isinstance(each, str)), None)
        raise TypeError(
            f"args of task {name!r} has the key {wrong!r}, and keyword arguments are named by text; to pass the "
            "mapping as one argument write args=[{...}]"
        ) from None


TaskCall = Signature
