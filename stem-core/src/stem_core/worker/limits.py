"""Time limits of a task on the event loop.

The soft limit is thrown into the handler at the ``await`` it stands at, as :exc:`SoftTimeLimitExceeded`.
The hard limit cancels the run. Neither can reach code that does not await: see the table in
``docs/delivery-guarantees.md``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any, Generic, TypeVar

from stem_core.errors import SoftTimeLimitExceeded

__all__ = ["Interruptible", "soft_limit_error"]

R = TypeVar("R")


class _SoftLimit(SoftTimeLimitExceeded, asyncio.CancelledError):
    """What is thrown: code that must undo work when cancelled (a TaskGroup, say) sees a cancellation too."""

    def __reduce__(self) -> tuple[type[SoftTimeLimitExceeded], tuple[object, ...]]:
        return SoftTimeLimitExceeded, self.args


# It is nobody's business that there is a subclass: statuses and policies know the public name.
_SoftLimit.__name__ = SoftTimeLimitExceeded.__name__
_SoftLimit.__qualname__ = SoftTimeLimitExceeded.__qualname__
_SoftLimit.__module__ = SoftTimeLimitExceeded.__module__


def soft_limit_error(seconds: float) -> SoftTimeLimitExceeded:
    """The error of a soft limit of ``seconds``."""
    return _SoftLimit(f"the soft time limit of {seconds:g} s ended")


class Interruptible(Generic[R]):
    """Awaits a coroutine; :meth:`interrupt` makes one cancellation arrive in it as another exception."""

    __slots__ = ("_coroutine", "_pending", "_task")

    def __init__(self, coroutine: Coroutine[Any, Any, R]) -> None:
        self._coroutine = coroutine
        self._pending: BaseException | None = None
        self._task: asyncio.Task[Any] | None = None

    def interrupt(self, error: BaseException) -> None:
        """Throw ``error`` at the await where the coroutine stands."""
        if self._task is not None and not self._task.done():
            self._pending = error
            self._task.cancel()

    def __await__(self) -> Generator[Any, Any, R]:
        self._task = asyncio.current_task()
        send, throw = self._coroutine.send, self._coroutine.throw
        error: BaseException | None = None
        value: Any = None
        while True:
            try:
                waited_for = send(value) if error is None else throw(error)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            error = value = None
            try:
                value = yield waited_for
            except asyncio.CancelledError as cancelled:
                error = self._translate(cancelled)
            except BaseException as other:  # noqa: BLE001 - all of it belongs to the coroutine
                error = other

    def _translate(self, cancelled: asyncio.CancelledError) -> BaseException:
        error, self._pending = self._pending, None
        if error is None or self._task is None:
            return cancelled
        self._task.uncancel()
        return error
