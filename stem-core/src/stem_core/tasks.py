"""Tasks: functions that can be enqueued, with the types of the functions.

``Task[P, R]`` is called with ``P`` and its handle gives an ``R``. Two more parameters, filled in by the
decorator, keep the type of the function itself (it may take a ``TaskContext`` first), so that
calling a task directly is checked too.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Literal, Protocol, TypedDict, overload

from stem_core.arguments import Parameters
from stem_core.errors import ConfigurationError
from stem_core.handles import TaskHandle
from stem_core.options import (
    Duration,
    TaskEnqueueOptions,
    TaskMetadata,
    TaskOptions,
    TaskRetryPolicy,
    check_name,
)
from stem_core.signature import NO_OPTIONS, Signature

if TYPE_CHECKING:
    from typing import Unpack

    from typing_extensions import ParamSpec, TypeVar

    from stem_core.context import TaskContext

    P = ParamSpec("P")
    R = TypeVar("R")
    FunctionP = ParamSpec("FunctionP", default=...)
    FunctionR = TypeVar("FunctionR", default=Any)
    Context = TypeVar("Context", bound=TaskContext)
else:
    from typing import ParamSpec, TypeVar

    P = ParamSpec("P")
    R = TypeVar("R")
    FunctionP = ParamSpec("FunctionP")
    FunctionR = TypeVar("FunctionR")
    Context = TypeVar("Context")

R_co = TypeVar("R_co", covariant=True)

__all__ = ["Task", "TaskDecorator", "TaskEnqueueBuilder", "TaskFields"]


class Enqueuer(Protocol):
    """The part of a producer that tasks need."""

    async def enqueue_call(self, call: Signature[R], /) -> TaskHandle[R]: ...
    def enqueue_call_sync(self, call: Signature[R], /) -> TaskHandle[R]: ...


class Task(Generic[P, R, FunctionP, FunctionR]):
    """A function with a name, options, and a producer it belongs to. Read only."""

    def __init__(
        self,
        stem: Enqueuer,
        function: Callable[..., Any],
        *,
        name: str,
        options: TaskOptions,
        metadata: TaskMetadata,
        names: Mapping[str, Any] | None = None,
    ) -> None:
        self.stem = stem
        self.function = function
        self.name = check_name(name, "task name")
        self.options = options
        self.metadata = metadata
        self.parameters = Parameters(function, names)
        self.kind: Literal["async", "sync"] = "async" if _is_async(function) else "sync"
        self.isolation: Literal["async", "thread", "process"] = _isolation(name, function, self.kind, options)
        self.enqueue_options = NO_OPTIONS
        self.__doc__ = function.__doc__
        self.__name__ = getattr(function, "__name__", name)
        self.__wrapped__ = function

    if not TYPE_CHECKING:

        def __class_getitem__(cls, parameters: Any) -> type[Task]:
            # At run time Task[[int], str] is only an annotation; the defaults above need no PEP 696.
            return cls

    def __repr__(self) -> str:
        return f"<Task {self.name}>"

    def __call__(self, *args: FunctionP.args, **kwargs: FunctionP.kwargs) -> FunctionR:
        """Call the plain function, here and now; nothing is published."""
        result: FunctionR = self.function(*args, **kwargs)
        return result

    async def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> TaskHandle[R]:
        """Publish a call.

        :raises TypeError: the arguments do not fit the function; nothing was published.
        :raises EncodeError: one of them cannot be carried; nothing was published.
        :raises PublishError: the broker did not, or may not have, stored it.
        """
        return await self.stem.enqueue_call(self._call(args, kwargs))

    def enqueue_sync(self, *args: P.args, **kwargs: P.kwargs) -> TaskHandle[R]:
        """:meth:`enqueue` from code without an event loop."""
        return self.stem.enqueue_call_sync(self._call(args, kwargs))

    def call(self, *args: P.args, **kwargs: P.kwargs) -> Signature[R]:
        """A call as a value, for ``stem.enqueue_many``."""
        return self._call(args, kwargs)

    def s(self, *args: Any, **kwargs: Any) -> Signature[R]:
        """A signature for links and canvas; where there is an input, it becomes the first argument.

        :raises TypeError: these arguments can be part of no call.
        """
        self.parameters.check_partial(args, kwargs)
        return self._signature(args, kwargs)

    def si(self, *args: P.args, **kwargs: P.kwargs) -> Signature[R]:
        """An immutable signature: it takes no input."""
        self.parameters.bind(args, kwargs)
        return self._signature(args, kwargs, immutable=True)

    def with_options(self, **options: Unpack[EnqueueFields]) -> Task[P, R, FunctionP, FunctionR]:
        """This task with other options for what is published through the value returned."""
        changed: Task[P, R, FunctionP, FunctionR] = object.__new__(type(self))
        changed.__dict__.update(self.__dict__)
        changed.enqueue_options = self.enqueue_options.merged(TaskEnqueueOptions(**options))
        return changed

    def builder(self, *args: P.args, **kwargs: P.kwargs) -> TaskEnqueueBuilder[R]:
        """A call to be completed step by step."""
        return TaskEnqueueBuilder(self._call(args, kwargs), self.stem)

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Signature[R]:
        self.parameters.bind(args, kwargs)
        return self._signature(args, kwargs)

    def _signature(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], immutable: bool = False
    ) -> Signature[R]:
        return Signature(
            name=self.name,
            args=args,
            kwargs=kwargs,
            options=self.options,
            enqueue_options=self.enqueue_options,
            metadata=self.metadata,
            immutable=immutable,
            result_type=self.parameters.result_type,
            parameters=self.parameters,
        )


@dataclass(frozen=True, slots=True)
class TaskEnqueueBuilder(Generic[R]):
    """A call being put together. Immutable: each method answers a new builder."""

    signature: Signature[R]
    stem: Enqueuer | None = None

    def header(self, name: str, value: str) -> TaskEnqueueBuilder[R]:
        """With one header more."""
        return replace(self, signature=self.signature.with_headers({name: value}))

    def headers(self, headers: Mapping[str, str]) -> TaskEnqueueBuilder[R]:
        """With more headers."""
        return replace(self, signature=self.signature.with_headers(headers))

    def meta(self, name: str, value: Any) -> TaskEnqueueBuilder[R]:
        """With one meta value more, stored with the task's status."""
        return replace(self, signature=self.signature.with_meta({name: value}))

    def options(self, **options: Unpack[EnqueueFields]) -> TaskEnqueueBuilder[R]:
        """With fields of :class:`TaskEnqueueOptions` changed."""
        return replace(self, signature=self.signature.with_options(**options))

    def queue(self, queue: str) -> TaskEnqueueBuilder[R]:
        """For this queue."""
        return self.options(queue=queue)

    def priority(self, priority: int) -> TaskEnqueueBuilder[R]:
        """With this priority, 0 to 9."""
        return self.options(priority=priority)

    def countdown(self, delay: Duration) -> TaskEnqueueBuilder[R]:
        """Not before this long from now."""
        return self.options(countdown=delay)

    def call(self) -> Signature[R]:
        """The call as a value."""
        return self.signature

    async def enqueue(self) -> TaskHandle[R]:
        """Publish it through the producer of the task it came from."""
        return await self._own().enqueue_call(self.signature)

    def enqueue_sync(self) -> TaskHandle[R]:
        """:meth:`enqueue` from code without an event loop."""
        return self._own().enqueue_call_sync(self.signature)

    async def enqueue_with(self, stem: Enqueuer) -> TaskHandle[R]:
        """Publish it through ``stem``."""
        return await stem.enqueue_call(self.signature)

    def enqueue_with_sync(self, stem: Enqueuer) -> TaskHandle[R]:
        """:meth:`enqueue_with` from code without an event loop."""
        return stem.enqueue_call_sync(self.signature)

    def _own(self) -> Enqueuer:
        if self.stem is None:
            raise ConfigurationError(
                f"The builder of {self.signature.name!r} came from a definition, which belongs to no Stem; use "
                "enqueue_with(stem)"
            )
        return self.stem


class EnqueueFields(TypedDict, total=False):
    """The fields of :class:`TaskEnqueueOptions`, as keywords."""

    task_id: str | None
    eta: Any
    countdown: Duration | None
    expires: Any
    queue: str
    priority: int
    exchange: str | None
    routing_key: str | None
    producer: str | None
    time_limit: Duration | None
    soft_time_limit: Duration | None
    serializer: str | None
    compression: str | None
    ignore_result: bool
    shadow: str | None
    reply_to: str | None
    add_to_parent: bool
    retry: bool
    publish_retry_policy: TaskRetryPolicy | None
    retry_policy: TaskRetryPolicy | None
    publish_connection: Any
    link: Any
    link_error: Any


class OptionFields(TypedDict, total=False):
    """The fields of :class:`TaskOptions`, as keywords."""

    queue: str
    max_retries: int
    soft_time_limit: Duration | None
    hard_time_limit: Duration | None
    rate_limit: str | None
    group_rate_limit: str | None
    group_rate_key: str | None
    group_rate_key_header: str
    rate_limiter_failure_mode: Literal["open", "closed"]
    max_concurrency: int | None
    concurrency_key: str | None
    unique: bool
    unique_for: Duration | None
    unique_key: str | None
    priority: int
    acks_late: bool
    visibility_timeout: Duration | None
    retry_policy: TaskRetryPolicy | None
    isolation: Literal["async", "thread", "process"] | None
    ignore_result: bool
    result_ttl: Duration


class TaskFields(OptionFields, total=False):
    """What ``@stem.task(...)`` takes: the fields of TaskOptions and TaskMetadata, or whole values of either."""

    name: str
    options: TaskOptions
    metadata: TaskMetadata
    description: str
    tags: tuple[str, ...]
    idempotent: bool
    attributes: Mapping[str, Any]
    args_encoder: Any
    result_encoder: Any


class _Nothing:
    """No handler names this class: only a first parameter of type ``object`` or ``Any`` accepts it."""


class _TakesAnythingFirst(Protocol[P, R_co]):
    # Matched only by functions whose first parameter takes anything at all; without it a leading ``object``
    # would be taken for a TaskContext, since a function of object accepts one.
    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(self, first: _Nothing, /, *args: Any, **kwargs: Any) -> Any: ...


class TaskDecorator:
    """``@stem.task``, bare or with fields of :class:`TaskOptions` and :class:`TaskMetadata`."""

    def __init__(self, declare: Callable[..., Any], fields: Mapping[str, Any] | None = None) -> None:
        """:param declare: called with the function, the fields and the scope it was declared in."""
        self._declare = declare
        self._fields = fields or {}

    @overload
    def __call__(
        self, function: _TakesAnythingFirst[P, Coroutine[Any, Any, R]], /
    ) -> Task[P, R, P, Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, function: _TakesAnythingFirst[P, R], /) -> Task[P, R, P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(
        self, function: Callable[Concatenate[Context, P], Coroutine[Any, Any, R]], /
    ) -> Task[P, R, Concatenate[Context, P], Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Context, P], R], /
    ) -> Task[P, R, Concatenate[Context, P], R]: ...
    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> Task[P, R, P, Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R, P, R]: ...
    @overload
    def __call__(self, **fields: Unpack[TaskFields]) -> TaskDecorator: ...
    def __call__(self, *functions: Callable[..., Any], **fields: Any) -> Any:
        together = {**self._fields, **fields}
        if not functions:
            return TaskDecorator(self._declare, together)
        if len(functions) > 1:
            raise TypeError(f"@stem.task decorates one function, and was given {len(functions)}")
        (function,) = functions
        frame = inspect.currentframe()
        caller = frame.f_back if frame else None
        inside_a_function = caller is not None and caller.f_locals is not caller.f_globals
        names = dict(caller.f_locals) if caller and inside_a_function else None
        return self._declare(function, together, names)


def _is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(inspect.unwrap(function)) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - an object with an async __call__
    )


def _isolation(
    name: str, function: Callable[..., Any], kind: str, options: TaskOptions
) -> Literal["async", "thread", "process"]:
    chosen = options.isolation
    if chosen is None:
        if kind == "async":
            return "async"
        chosen = "process" if options.hard_time_limit is not None else "thread"
    if chosen == "async" and kind == "sync":
        raise ConfigurationError(
            f"Task {name!r}: isolation='async' needs an async function; leave isolation out to run it in a thread"
        )
    if chosen == "thread" and kind == "async":
        raise ConfigurationError(
            f"Task {name!r}: isolation='thread' needs a sync function; leave isolation out to run it on the loop"
        )
    if chosen == "thread" and options.hard_time_limit is not None:
        raise ConfigurationError(
            f"Task {name!r}: hard_time_limit={options.hard_time_limit} cannot be kept in a thread, which nothing can "
            "stop; use isolation='process', or soft_time_limit"
        )
    if chosen == "process":
        _check_importable(name, function)
    return chosen


def _check_importable(name: str, function: Callable[..., Any]) -> None:
    qualified = getattr(inspect.unwrap(function), "__qualname__", "")
    if not qualified or "<" in qualified:
        raise ConfigurationError(
            f"Task {name!r} runs in another process, which must import it, and {qualified or function!r} cannot be "
            "imported; define it at the top level of a module"
        )
