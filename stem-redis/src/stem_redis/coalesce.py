"""Many callers, one round trip: what arrives while a request is under way goes out together in the next.

A lone call is sent at once and waits for nobody. Nothing is delayed on purpose.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

__all__ = ["Coalescer"]

Item = TypeVar("Item")


class Coalescer(Generic[Item]):
    """Joins calls of ``send``, which answers each item. An error of a joined call is everyone's in it."""

    def __init__(self, send: Callable[[Sequence[Item]], Awaitable[list[bool]]]) -> None:
        self._send = send
        self._busy = False
        self._waiting: list[tuple[Sequence[Item], asyncio.Future[list[bool]]]] = []
        self._drainer: asyncio.Task[None] | None = None

    async def submit(self, items: Sequence[Item]) -> list[bool]:
        """The answers to ``items``, in order."""
        if self._busy:
            future: asyncio.Future[list[bool]] = asyncio.get_running_loop().create_future()
            self._waiting.append((items, future))
            return await future
        self._busy = True
        try:
            return await self._send(items)
        finally:
            if self._waiting:
                self._drainer = asyncio.create_task(self._drain())
            else:
                self._busy = False

    async def _drain(self) -> None:
        while self._waiting:
            calls, self._waiting = self._waiting, []
            try:
                answers = await self._send([item for items, _ in calls for item in items])
            except Exception as error:  # noqa: BLE001 - handed to every caller
                for _, future in calls:
                    if not future.done():
                        future.set_exception(_copy(error))
                continue
            at = 0
            for items, future in calls:
                if not future.done():
                    future.set_result(answers[at : at + len(items)])
                at += len(items)
        self._busy = False


def _copy(error: Exception) -> Exception:
    """One for each caller: a raised exception collects the traceback of whoever raises it."""
    copied = type(error)(*error.args)
    copied.__cause__ = error
    return copied
