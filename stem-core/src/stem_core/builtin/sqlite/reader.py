"""The one thread of a process that reads the file, and watches it for what other processes write."""

from __future__ import annotations

import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Final

from stem_core.builtin.sqlite.calls import Call, answer
from stem_core.builtin.sqlite.schema import connect, patiently
from stem_core.builtin.sqlite.unit import Unit
from stem_core.clock import Clock
from stem_core.errors import AdapterError

__all__ = ["Reader"]

#: Seconds between looks for other processes' commits: the first while there are some, the last when idle.
_SHORTEST: Final = 0.005
_LONGEST: Final = 0.1
_SLOWDOWN: Final = 1.5


class Reader:
    """Reads on a connection of its own, so that no read waits for a write.

    While somebody waits (``is_awaited``) it asks for ``PRAGMA data_version``, which changes with every commit of
    another connection and costs no I/O, and calls ``changed`` when it did.
    """

    def __init__(
        self,
        path: str,
        synchronous: str,
        clock: Clock,
        is_awaited: Callable[[], bool],
        changed: Callable[[Unit], None],
    ) -> None:
        self._path = path
        self._synchronous = synchronous
        self._clock = clock
        self._is_awaited = is_awaited
        self._changed = changed
        self._calls: queue.SimpleQueue[Call[Unit] | bool] = queue.SimpleQueue()
        self._connection: sqlite3.Connection | None = None
        self._seen = -1
        self._interval = _SHORTEST
        self._thread = threading.Thread(target=self._run, name="stem-sqlite-reader", daemon=True)
        self._thread.start()

    def submit(self, call: Call[Unit]) -> None:
        self._calls.put(call)

    def watch(self) -> None:
        """Somebody began to wait: look at the clock again."""
        self._calls.put(True)

    def stop(self) -> None:
        """Close the connection; returns when that is done."""
        self._calls.put(False)
        self._thread.join()

    def _run(self) -> None:
        next_look = 0.0
        while True:
            call: Call[Unit] | bool = True
            with contextlib.suppress(queue.Empty):
                call = self._calls.get(timeout=self._pause(next_look))
            if call is False:
                break
            if isinstance(call, Call):
                self._do(call)
                answer((call,))
            if self._is_awaited() and time.monotonic() >= next_look:
                self._look()
                next_look = time.monotonic() + self._interval
        self._disconnect()

    def _pause(self, next_look: float) -> float | None:
        return max(0.0, next_look - time.monotonic()) if self._is_awaited() else None

    def _do(self, call: Call[Unit]) -> None:
        try:
            call.result = patiently(self._path, lambda: call.operation(self._unit()))
        except sqlite3.Error as error:
            self._disconnect()
            call.error = AdapterError(f"The SQLite file {self._path!r}: {error}")
            call.error.__cause__ = error
        except Exception as error:  # noqa: BLE001 (whatever it is, it belongs to the caller)
            call.error = error

    def _look(self) -> None:
        try:
            unit = self._unit()
            version = unit.value("PRAGMA data_version")
            if version == self._seen:
                self._interval = min(self._interval * _SLOWDOWN, _LONGEST)
                return
            self._seen = version
            self._interval = _SHORTEST
            self._changed(unit)
        except Exception:  # noqa: BLE001 (whoever waits sees the fault at the next call of its own)
            self._disconnect()
            self._interval = _LONGEST

    def _unit(self) -> Unit:
        if self._connection is None:
            self._connection = connect(self._path, self._synchronous)
            self._seen = -1
        return Unit(self._connection, self._clock.time(), {})

    def _disconnect(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None
