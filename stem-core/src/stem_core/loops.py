"""The home loop of a producer: where its adapters live, and how calls from elsewhere get there.

Adapters belong to one event loop. That is the loop which opened the producer, else a loop in a background
thread, started on first use. Calls from other loops and threads hop to it.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from stem_core.coalescing import Coalescer
from stem_core.errors import StemError
from stem_core.wiring import Wiring

__all__ = ["Home", "Residence"]

T = TypeVar("T")

#: How often a caller that waits for another loop looks whether that loop still runs, in seconds.
_LOOK: Final = 1.0
#: How long the end of the interpreter waits for a background loop to close its adapters, in seconds.
_LAST_WAIT: Final = 5.0


class Residence:
    """One stay at one loop, in one process: open adapters and the coalescer that publishes through them."""

    __slots__ = ("_opening", "coalescer", "loop", "pid", "thread", "wiring")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        wiring: Wiring,
        publish_timeout: float,
        thread: threading.Thread | None = None,
    ) -> None:
        self.loop = loop
        self.wiring = wiring
        self.coalescer = Coalescer(wiring, publish_timeout, self.open, loop)
        self.thread = thread
        self.pid = os.getpid()
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        async with self._opening:
            await self.wiring.open()

    async def close(self) -> None:
        await self.coalescer.close()
        await self.wiring.close()


Work = Callable[[Residence], Awaitable[T]]


class Home:
    """Where a producer's adapters live. Safe to use from any thread; a forked child starts anew."""

    def __init__(self, wiring: Wiring, publish_timeout: float) -> None:
        self.wiring = wiring
        self._publish_timeout = publish_timeout
        self._residence: Residence | None = None
        self._closed = False
        # By process: a lock that was held while forking stays locked in the child for ever.
        self._locks: dict[int, threading.Lock] = {}
        # Of parent processes: kept, because finalizers would speak on connections that the parent still uses.
        self._abandoned: list[Residence] = []

    def here(self) -> Residence | None:
        """The residence, if it is open and this is its loop and process; the quick way to it."""
        residence = self._residence
        if residence is None or not residence.wiring.is_open or residence.pid != os.getpid():
            return None
        try:
            return residence if asyncio.get_running_loop() is residence.loop else None
        except RuntimeError:
            return None

    @property
    def is_open(self) -> bool:
        """Whether there is an open residence that can be used."""
        with self._lock():
            residence = self._current()
        return residence is not None and residence.wiring.is_open

    async def open(self) -> bool:
        """Make the running loop the home. Returns False when there was one already.

        :raises AdapterError: an adapter is out of reach.
        """
        loop = asyncio.get_running_loop()
        with self._lock():
            current = self._current()
            background = current if current is not None and current.thread is not None else None
            if background is not None and background.loop is not loop:
                # What the first use started makes way for the loop that was chosen on purpose.
                self._leave()
                current = None
            if current is None:
                current = self._residence = Residence(loop, self.wiring, self._publish_timeout)
                fresh = True
            else:
                fresh = False
            self._closed = False
        if background is not None and fresh:
            await asyncio.to_thread(_stop, background, _LAST_WAIT)
        if not fresh and current.loop is not loop:
            return False
        try:
            await current.open()
        except BaseException:
            with self._lock():
                if fresh and self._residence is current:
                    self._residence = None
            raise
        return fresh

    async def close(self) -> None:
        """Publish what is under way, then release the adapters. Calling it again is fine."""
        with self._lock():
            residence = self._current()
            self._leave()
            self._closed = True
        if residence is None:
            return
        if residence.thread is not None:
            await asyncio.to_thread(_stop, residence, None)
        elif residence.loop is asyncio.get_running_loop():
            await residence.close()
        elif residence.loop.is_running():
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(residence.close(), residence.loop))

    def close_sync(self) -> None:
        """:meth:`close` from code without an event loop."""
        with self._lock():
            residence = self._current()
            if residence is not None and residence.thread is None and residence.loop is _running_loop():
                raise StemError(
                    "close_sync() would block the event loop that it waits for; use await close()"
                )
            self._leave()
            self._closed = True
        if residence is None:
            return
        if residence.thread is not None:
            _stop(residence, None)
        elif residence.loop.is_running():
            asyncio.run_coroutine_threadsafe(residence.close(), residence.loop).result()

    async def run(self, work: Work[T], *, connected: bool = True) -> T:
        """``work`` done at home, wherever the caller is.

        :param connected: whether the adapters must be open before; work that opens them itself says False.
        :raises StemError: the producer was closed, or the home loop does not run at the moment.
        """
        residence = self.here()
        if residence is not None:
            return await work(residence)
        residence = self._settle()
        if residence.loop is asyncio.get_running_loop():
            return await _at(residence, work, connected)
        wrapped = asyncio.wrap_future(_hop(residence, work, connected))
        try:
            while not (await asyncio.wait({wrapped}, timeout=_LOOK))[0]:
                if not residence.loop.is_running():
                    raise StemError(_NOT_RUNNING)
        except BaseException:
            wrapped.cancel()
            raise
        return wrapped.result()

    def run_sync(self, work: Work[T], *, connected: bool = True) -> T:
        """:meth:`run` from code without an event loop.

        :raises StemError: as :meth:`run`, or this is the home loop's own thread.
        """
        residence = self._settle()
        if residence.loop is _running_loop():
            raise StemError(
                "A _sync call on the event loop's own thread would block the loop that it waits for; use the "
                "async method with await, or call it in a thread (asyncio.to_thread)."
            )
        future = _hop(residence, work, connected)
        try:
            while True:
                try:
                    return future.result(_LOOK)
                except TimeoutError:
                    if future.done():
                        raise
                    if not residence.loop.is_running():
                        raise StemError(_NOT_RUNNING) from None
        except BaseException:
            future.cancel()
            raise

    def _settle(self) -> Residence:
        """The residence; a background one is started where there is none."""
        with self._lock():
            residence = self._current()
            if residence is None:
                if self._closed:
                    raise StemError(
                        "This Stem is closed; open it again with 'async with stem' or await stem.open()."
                    )
                residence = self._residence = _in_background(self.wiring, self._publish_timeout)
                weakref.finalize(self, _stop, residence, _LAST_WAIT)
            return residence

    def _current(self) -> Residence | None:
        """The residence if it is of this process and its loop is not closed; else it is left. Locked."""
        residence = self._residence
        if residence is None:
            return None
        if residence.pid != os.getpid():
            self._abandoned.append(residence)
            self._leave()
        elif residence.loop.is_closed():
            self._leave()
        return self._residence

    def _leave(self) -> None:
        """Forget the residence; the next one gets adapters of its own. Locked."""
        if self._residence is not None:
            self.wiring = self.wiring.copy()
            self._residence = None

    def _lock(self) -> threading.Lock:
        return self._locks.setdefault(os.getpid(), threading.Lock())


_NOT_RUNNING: Final = (
    "This Stem's home loop, the one that opened it, is not running at the moment, so nothing can be published "
    "through it. Make the call from that loop, or close the Stem there and let a background loop take over."
)


async def _at(residence: Residence, work: Work[T], connected: bool) -> T:
    if connected and not residence.wiring.is_open:
        await residence.open()
    return await work(residence)


def _hop(residence: Residence, work: Work[T], connected: bool) -> Future[T]:
    if not residence.loop.is_running():
        raise StemError(_NOT_RUNNING)
    coroutine: Coroutine[Any, Any, T] = _at(residence, work, connected)
    try:
        return asyncio.run_coroutine_threadsafe(coroutine, residence.loop)
    except RuntimeError:
        coroutine.close()
        raise StemError(_NOT_RUNNING) from None


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _in_background(wiring: Wiring, publish_timeout: float) -> Residence:
    loop = asyncio.new_event_loop()
    started = threading.Event()
    thread = threading.Thread(target=_run_loop, args=(loop, started), name="stem-home-loop", daemon=True)
    thread.start()
    started.wait()
    return Residence(loop, wiring, publish_timeout, thread)


def _run_loop(loop: asyncio.AbstractEventLoop, started: threading.Event) -> None:
    asyncio.set_event_loop(loop)
    loop.call_soon(started.set)
    try:
        loop.run_forever()
    finally:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def _stop(residence: Residence, patience: float | None) -> None:
    """Close a background residence and end its thread, waiting at most ``patience`` seconds for it."""
    thread = residence.thread
    if thread is None or residence.pid != os.getpid() or residence.loop.is_closed():
        return

    async def close() -> None:
        try:
            await residence.close()
        finally:
            residence.loop.call_soon(residence.loop.stop)

    asyncio.run_coroutine_threadsafe(close(), residence.loop)
    if thread is not threading.current_thread():
        thread.join(patience)
