"""The one thread of a process that reads the file."""

from __future__ import annotations

import contextlib
import queue
import sqlite3
import threading

from stem_core.builtin.sqlite.calls import Call, answer
from stem_core.builtin.sqlite.schema import connect, patiently
from stem_core.builtin.sqlite.unit import Unit
from stem_core.clock import Clock
from stem_core.errors import AdapterError

__all__ = ["Reader"]


class Reader:
    """Reads on a connection of its own, so that no read waits for a write."""

    def __init__(self, path: str, synchronous: str, clock: Clock) -> None:
        self._path = path
        self._synchronous = synchronous
        self._clock = clock
        self._calls: queue.SimpleQueue[Call[Unit] | None] = queue.SimpleQueue()
        self._connection: sqlite3.Connection | None = None
        self._thread = threading.Thread(target=self._run, name="stem-sqlite-reader", daemon=True)
        self._thread.start()

    def submit(self, call: Call[Unit]) -> None:
        self._calls.put(call)

    def stop(self) -> None:
        """Close the connection; returns when that is done."""
        self._calls.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            self._do(call)
            answer((call,))
        self._disconnect()

    def _do(self, call: Call[Unit]) -> None:
        try:
            call.result = patiently(self._path, lambda: call.operation(self._unit()))
        except sqlite3.Error as error:
            self._disconnect()
            call.error = AdapterError(f"The SQLite file {self._path!r}: {error}")
            call.error.__cause__ = error
        except Exception as error:  # noqa: BLE001 (whatever it is, it belongs to the caller)
            call.error = error

    def _unit(self) -> Unit:
        if self._connection is None:
            self._connection = connect(self._path, self._synchronous)
        return Unit(self._connection, self._clock.time(), {})

    def _disconnect(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None
