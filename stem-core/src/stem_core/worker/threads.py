"""Runs sync handlers in threads.

Own threads and not ``concurrent.futures``: they are daemons, so that a handler that cannot be stopped does not
keep the process from exiting, and a soft limit can be raised inside the one that runs.
"""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import queue
import threading
from collections.abc import Callable
from typing import Any, Final

__all__ = ["ThreadExecutor", "ThreadJob"]

_raise_in: Final = ctypes.pythonapi.PyThreadState_SetAsyncExc
_raise_in.argtypes = (ctypes.c_ulong, ctypes.py_object)


class ThreadJob:
    """One call in a thread."""

    def __init__(self, call: Callable[[], Any], on_start: Callable[[], None]) -> None:
        self._call = call
        self._on_start = on_start
        self._context = contextvars.copy_context()
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._thread: int | None = None
        self._over = False
        self._thrown = False
        self.started = False
        self.future: asyncio.Future[Any] = self._loop.create_future()

    def abandon(self) -> None:
        """Never start it, if it has not started."""
        with self._lock:
            self._over = self._over or not self.started

    def throw(self, error: type[BaseException]) -> bool:
        """Raise ``error`` between two bytecodes of the handler; False when it is not running.

        It cannot reach code outside of the interpreter (a sleep, a regular expression) before that returns.
        """
        with self._lock:
            if self._over or self._thread is None:
                return False
            self._thrown = True
            _raise_in(self._thread, error)
            return True

    def run(self) -> None:
        """Called by the thread."""
        with self._lock:
            if self._over:
                return
            self.started = True
            self._thread = threading.get_ident()
        value: Any = None
        error: BaseException | None = None
        try:
            self._on_start()
            value = self._context.run(self._call)
        except BaseException as raised:  # noqa: BLE001 - whatever the handler raised is its outcome
            error = raised
        error = self._end(error)
        try:
            self._loop.call_soon_threadsafe(_resolve, self.future, value, error)
        except RuntimeError:
            return  # the loop is closed: the worker is gone, and this run with it

    def _end(self, error: BaseException | None) -> BaseException | None:
        """Let nothing be thrown from here on, and take back what was thrown and has not arrived."""
        while True:
            try:
                with self._lock:
                    self._over = True
                    if self._thrown and self._thread is not None:
                        _raise_in(self._thread, ctypes.py_object())
                return error
            except BaseException as late:  # noqa: BLE001 - thrown while the handler returned: it was in time
                error = error or late


class ThreadExecutor:
    """A fixed number of threads, started as they are needed."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._jobs: queue.SimpleQueue[ThreadJob | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._busy = 0

    def submit(self, call: Callable[[], Any], on_start: Callable[[], None]) -> ThreadJob:
        """Call ``call`` in the caller's ``contextvars`` context, in the next free thread.

        ``on_start`` is called first, in that thread. The outcome comes through the job's ``future``.
        """
        job = ThreadJob(call, on_start)
        self._busy += 1
        job.future.add_done_callback(self._done)
        if self._busy > len(self._threads) and len(self._threads) < self._count:
            thread = threading.Thread(
                target=self._work, name=f"stem-thread-{len(self._threads)}", daemon=True
            )
            self._threads.append(thread)
            thread.start()
        self._jobs.put(job)
        return job

    def close(self) -> None:
        """Let every thread end once it is idle; those in a handler are not waited for."""
        for _ in self._threads:
            self._jobs.put(None)
        self._threads = []

    def _done(self, _: object) -> None:
        self._busy -= 1

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.run()


def _resolve(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if future.done():
        return  # nobody waits any more
    if error is None:
        future.set_result(value)
    elif isinstance(error, StopIteration):
        future.set_exception(RuntimeError(f"the handler raised {error!r}"))
    else:
        future.set_exception(error)
