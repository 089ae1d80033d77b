"""Waking coroutines that wait on any event loop, from any thread."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

from stem_core.clock import Clock

__all__ = ["Waiter", "Waiters"]

K = TypeVar("K", bound=Hashable)


class Waiter:
    """One coroutine's wait. Made on its own loop, woken from anywhere."""

    __slots__ = ("_future", "_loop")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] = self._loop.create_future()

    def wake(self) -> None:
        if asyncio._get_running_loop() is self._loop:  # noqa: SLF001 (public, named like this to be quick)
            self._done()
        else:
            with contextlib.suppress(RuntimeError):  # the loop was closed under its coroutine
                self._loop.call_soon_threadsafe(self._done)

    def _done(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    async def wait(
        self, patience: float | None = None, clock: Clock | None = None, due: float | None = None
    ) -> None:
        """Until woken, or ``due`` by ``clock``, or for ``patience`` seconds of real time.

        Patience is the caller's, so it passes even where a test holds the clock still.
        """
        impatient = None if patience is None else self._loop.call_later(patience, self._done)
        forget = None if clock is None or due is None else clock.wake_at(due, self.wake)
        try:
            await self._future
        finally:
            if impatient is not None:
                impatient.cancel()
            if forget is not None:
                forget()


class Waiters(Generic[K]):
    """Who waits for which key. Guarded by the lock of whoever owns it."""

    __slots__ = ("_by_key",)

    def __init__(self) -> None:
        self._by_key: dict[K, set[Waiter]] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def __iter__(self) -> Iterator[K]:
        return iter(self._by_key)

    def add(self, key: K, waiter: Waiter) -> None:
        self._by_key.setdefault(key, set()).add(waiter)

    def discard(self, key: K, waiter: Waiter) -> None:
        waiting = self._by_key.get(key)
        if waiting is not None:
            waiting.discard(waiter)
            if not waiting:
                del self._by_key[key]

    def wake(self, key: K) -> None:
        for waiter in self._by_key.get(key, ()):
            waiter.wake()

    def wake_all(self) -> None:
        for waiting in self._by_key.values():
            for waiter in waiting:
                waiter.wake()
