"""Calls from event loops to the file's threads, and their answers back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

__all__ = ["Call", "answer"]

A = TypeVar("A")


class Call(Generic[A]):
    """One operation asked for by a coroutine. Made on its loop, run on a thread, answered on the loop.

    ``undo`` is called on the loop with the result when nobody waits for that any more. ``durable`` is False for
    what may be lost with the machine's power without harm: a lost claim is a second delivery.
    """

    __slots__ = ("durable", "error", "future", "loop", "operation", "result", "undo")

    def __init__(
        self, operation: Callable[[A], Any], undo: Callable[[Any], None] | None = None, durable: bool = True
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.operation = operation
        self.undo = undo
        self.durable = durable
        self.result: Any = None
        self.error: BaseException | None = None

    def finish(self) -> None:
        if self.future.cancelled():
            if self.undo is not None and self.error is None:
                self.undo(self.result)
        elif self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


def answer(calls: Iterable[Call[Any]]) -> None:
    """Hand every answer over, with one wake-up for each loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Call[Any]]] = {}
    for call in calls:
        by_loop.setdefault(call.loop, []).append(call)
    for loop, mine in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop is closed; nobody is left to tell
            loop.call_soon_threadsafe(_finish, mine)


def _finish(calls: list[Call[Any]]) -> None:
    for call in calls:
        call.finish()
