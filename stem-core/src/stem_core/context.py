"""What a running task can see and ask for: :class:`TaskContext`, and :func:`current_task`.

A context talks to whoever runs the task through :class:`Controls`: the worker itself for tasks on the
loop and in threads, a pipe for tasks in a process of their own.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, MutableMapping, Sequence
from contextvars import ContextVar
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

from stem_core.checks import Kind, check_kind
from stem_core.clock import Clock, SystemClock, instant, seconds
from stem_core.errors import StemError
from stem_core.options import Duration, TaskRetryPolicy
from stem_core.retry import RetryRequest
from stem_core.signature import Signature, keywords_of
from stem_core.status import Progress

if TYPE_CHECKING:
    from stem_core.handles import TaskHandle

__all__ = ["Controls", "RetryTask", "TaskContext", "current_task"]

_log = logging.getLogger("stem.task")


class RetryTask(StemError):
    """Raised by a handler, made by ``ctx.retry(...)``: run this task again."""

    def __init__(self, request: RetryRequest) -> None:
        super().__init__(request)
        self.request = request

    def __str__(self) -> str:
        return "the task asked to be retried"


class Controls(Protocol):
    """What the worker offers a running task. The ``_sync`` twins are for other threads than the loop's."""

    async def heartbeat(self) -> None: ...
    async def extend_lease(self, seconds: float) -> None: ...
    async def progress(self, progress: Progress) -> None: ...
    async def enqueue(self, call: Signature[Any]) -> TaskHandle[Any]: ...
    def heartbeat_sync(self) -> None: ...
    def extend_lease_sync(self, seconds: float) -> None: ...
    def progress_sync(self, progress: Progress) -> None: ...
    def enqueue_sync(self, call: Signature[Any]) -> TaskHandle[Any]: ...


class TaskContext:
    """The running task, handed to a handler whose first parameter is annotated with it.

    ``attempt`` counts from 0 and starts again with each replay, which ``generation`` counts. ``state`` is
    what the worker's ``on_startup`` functions put there: a database pool, an HTTP client.
    """

    __slots__ = (
        "_clock",
        "_controls",
        "attempt",
        "generation",
        "headers",
        "id",
        "meta",
        "name",
        "queue",
        "root",
        "state",
    )

    def __init__(
        self,
        *,
        id: str,
        name: str,
        queue: str,
        controls: Controls,
        attempt: int = 0,
        generation: int = 0,
        headers: Mapping[str, str] | None = None,
        meta: Mapping[str, Any] | None = None,
        root: str | None = None,
        state: MutableMapping[str, Any] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.id = id
        self.name = name
        self.queue = queue
        self.attempt = attempt
        self.generation = generation
        self.headers = headers if headers is not None else {}
        self.meta = meta if meta is not None else {}
        #: The first task of the family this one belongs to: its own id unless a task enqueued it.
        self.root = root or id
        self.state = state if state is not None else {}
        self._controls = controls
        self._clock = clock

    def __repr__(self) -> str:
        return f"<TaskContext {self.name} {self.id} attempt {self.attempt}>"

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose records carry ``task_id``, ``task_name``, ``queue`` and ``attempt``."""
        return _TaskLog(_log, _fields(self))

    def retry(
        self,
        *,
        countdown: Duration | None = None,
        eta: datetime | None = None,
        retry_policy: TaskRetryPolicy | None = None,
    ) -> RetryTask:
        """What to raise to run this task again: after ``countdown``, at ``eta``, or as the policy says.

        Past ``max_retries`` it is a failure.

        :raises ValueError: ``eta`` is naive, or ``countdown`` negative.
        """
        delay = None if countdown is None else seconds(countdown)
        if delay is not None and not 0 <= delay < float("inf"):
            raise ValueError(f"countdown={countdown!r} is not a duration of 0 or more seconds")
        if eta is not None:
            now = (self._clock or SystemClock()).time()
            delay = max(0.0, instant(eta).timestamp() - now)
        return RetryTask(RetryRequest(delay, retry_policy))

    def task_context(self) -> TaskContext:
        """This context: what :func:`enter_task` needs."""
        return self

    async def heartbeat(self) -> None:
        """Renew the lease now and check that it still holds. The worker renews it by itself as well.

        :raises LeaseLost: another worker may run this task already; stop.
        """
        await self._controls.heartbeat()

    async def extend_lease(self, duration: Duration) -> None:
        """Hold the lease for ``duration`` from now, even if this process dies meanwhile.

        :raises LeaseLost: as :meth:`heartbeat`.
        """
        await self._controls.extend_lease(_positive(duration))

    async def progress(self, percent: float, data: Any = None) -> None:
        """Store how far the task is: 0 to 100, and any plain data."""
        await self._controls.progress(_progress(percent, data))

    async def enqueue(self, call: Signature[Any] | str, args: Any = (), **options: Any) -> TaskHandle[Any]:
        """Enqueue a call (``task.call(...)``), or a task by name, as a child of this one.

        :param args: of a task by name: a mapping gives keyword arguments, a list positional ones.
        :param options: fields of :class:`TaskEnqueueOptions`.
        """
        return await self._controls.enqueue(_call(call, args, options))

    def heartbeat_sync(self) -> None:
        """:meth:`heartbeat` for sync handlers."""
        self._controls.heartbeat_sync()

    def extend_lease_sync(self, duration: Duration) -> None:
        """:meth:`extend_lease` for sync handlers."""
        self._controls.extend_lease_sync(_positive(duration))

    def progress_sync(self, percent: float, data: Any = None) -> None:
        """:meth:`progress` for sync handlers."""
        self._controls.progress_sync(_progress(percent, data))

    def enqueue_sync(self, call: Signature[Any] | str, args: Any = (), **options: Any) -> TaskHandle[Any]:
        """:meth:`enqueue` for sync handlers."""
        return self._controls.enqueue_sync(_call(call, args, options))


class HasContext(Protocol):
    """A run, which makes its context when somebody asks for it: most handlers never do."""

    def task_context(self) -> TaskContext: ...


_current: ContextVar[HasContext | None] = ContextVar("stem_current_task", default=None)

#: Makes a run the current task of this ``contextvars`` context; each run has its own.
enter_task: Final = _current.set


def current_task() -> TaskContext | None:
    """The context of the task that this code runs in, None outside of one."""
    run = _current.get()
    return None if run is None else run.task_context()


class _TaskLog(logging.LoggerAdapter[logging.Logger]):
    """Adds the task's fields and keeps the caller's own ``extra``."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs


def _fields(context: TaskContext) -> dict[str, Any]:
    return {
        "task_id": context.id,
        "task_name": context.name,
        "queue": context.queue,
        "attempt": context.attempt,
    }


class TaskLogFilter(logging.Filter):
    """Gives every record the fields of the task it was logged in, for handlers of any logger."""

    def filter(self, record: logging.LogRecord) -> bool:
        context = current_task()
        for name, value in (_fields(context) if context else _NO_FIELDS).items():
            if not hasattr(record, name):
                setattr(record, name, value)
        return True


_NO_FIELDS: Final[Mapping[str, Any]] = {"task_id": None, "task_name": None, "queue": None, "attempt": None}


def _progress(percent: float, data: Any) -> Progress:
    check_kind("percent", percent, Kind((int, float), "a number of 0 to 100"))
    if not 0 <= percent <= 100:
        raise ValueError(f"percent={percent!r} is not between 0 and 100")
    return Progress(float(percent), data)


def _positive(duration: Duration) -> float:
    value = seconds(duration)
    if not 0 < value < float("inf"):
        raise ValueError(f"{duration!r} is not a duration longer than 0 seconds")
    return value


def _call(call: Signature[Any] | str, args: Any, options: Mapping[str, Any]) -> Signature[Any]:
    if isinstance(call, str):
        call = Signature(name=call, **_arguments(call, args))
    elif not isinstance(call, Signature):
        raise TypeError(f"{call!r} is neither a call nor a task's name; write task.call(...)")
    elif args:
        raise TypeError(f"args={args!r} goes with a task's name; a call has its own: task.call(...)")
    return call.with_options(**options) if options else call


def _arguments(name: str, args: Any) -> dict[str, Any]:
    if isinstance(args, Mapping):
        return {"kwargs": keywords_of(name, args)}
    if isinstance(args, Sequence) and not isinstance(args, str | bytes):
        return {"args": args}
    raise TypeError(
        f"args={args!r} of task {name!r} must be a mapping (keyword arguments) or a list (positional ones)"
    )
