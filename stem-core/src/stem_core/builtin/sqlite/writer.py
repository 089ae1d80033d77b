"""The one thread of a process that writes to the file: what waits goes into one transaction.

Between transactions it looks whether other processes have written, see :mod:`~stem_core.builtin.sqlite.watch`.
"""

from __future__ import annotations

import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Final

from stem_core.builtin.sqlite.calls import Call, answer
from stem_core.builtin.sqlite.schema import connect, patiently
from stem_core.builtin.sqlite.unit import Unit
from stem_core.builtin.sqlite.watch import Watch
from stem_core.clock import Clock
from stem_core.errors import AdapterError, StemError

__all__ = ["CommitError", "Writer"]

#: Most operations in one transaction.
_GROUP: Final = 256


class _Order(Enum):
    """What the thread is told besides calls."""

    LOOK = "somebody began to wait"
    STOP = "finish what was submitted, then end"


class CommitError(AdapterError):
    """The commit itself failed, so that nobody knows whether it happened."""


class Writer:
    """Group commit: the operations that arrive while one transaction is written are the next one.

    An operation that raises rolls the transaction back; then each of them runs in one of its own, so its fault
    is its caller's alone and the others never see it.
    """

    def __init__(
        self, path: str, synchronous: str, clock: Clock, committed: Callable[[Unit], None], watch: Watch
    ) -> None:
        self._path = path
        self._synchronous = synchronous
        self._clock = clock
        self._committed = committed
        self._watch = watch
        self._orders: queue.SimpleQueue[Call[Unit] | _Order] = queue.SimpleQueue()
        self._connection: sqlite3.Connection | None = None
        self._is_durable = True
        self._numbers: dict[tuple[int, str], int] = {}
        self._thread = threading.Thread(target=self._run, name="stem-sqlite-writer", daemon=True)
        self._thread.start()

    def submit(self, call: Call[Unit]) -> None:
        self._orders.put(call)

    def watch(self) -> None:
        """Somebody began to wait for what other processes may write."""
        self._orders.put(_Order.LOOK)

    def stop(self) -> None:
        """Finish what was submitted, then close the connection; returns when that is done."""
        self._orders.put(_Order.STOP)
        self._thread.join()

    def _run(self) -> None:
        orders: Sequence[Call[Unit] | _Order] = ()
        while _Order.STOP not in orders:
            orders = self._next_orders()
            calls = [each for each in orders if isinstance(each, Call) and not each.future.cancelled()]
            # What waits for no disk goes first: a claim gives the loop work to do while the rest is written.
            for durable in (False, True):
                if part := [call for call in calls if call.durable is durable]:
                    self._do(part)
                    answer(part)
            if _Order.LOOK in orders:
                self._watch.hurry()
            if self._watch.pause() == 0.0:
                self._look()
        self._disconnect()

    def _next_orders(self) -> list[Call[Unit] | _Order]:
        """What has come, waited for until it is time to look."""
        orders: list[Call[Unit] | _Order] = []
        with contextlib.suppress(queue.Empty):
            orders.append(self._orders.get(timeout=self._watch.pause()))
            while len(orders) < _GROUP:
                orders.append(self._orders.get_nowait())
        return orders

    def _look(self) -> None:
        try:
            self._watch.look(Unit(self._connected(durable=self._is_durable), self._clock.time(), {}))
        except Exception:  # noqa: BLE001 (whoever waits sees the fault at the next call of its own)
            self._disconnect()

    def _do(self, calls: Sequence[Call[Unit]]) -> None:
        try:
            self._transaction(calls)
        except Exception as error:  # noqa: BLE001 (whatever it is, it belongs to a caller)
            if len(calls) == 1 or isinstance(error, CommitError):
                for call in calls:
                    call.error = self._translated(error)
            else:
                for call in calls:
                    self._do([call])

    def _transaction(self, calls: Sequence[Call[Unit]]) -> None:
        connection = self._connected(durable=any(call.durable for call in calls))
        patiently(self._path, lambda: connection.execute("BEGIN IMMEDIATE"))
        try:
            unit = Unit(connection, self._clock.time(), self._numbers)
            for call in calls:
                call.result = call.operation(unit)
        except BaseException:
            self._roll_back(connection)
            raise
        try:
            patiently(self._path, lambda: connection.execute("COMMIT"))
        except Exception as error:
            self._roll_back(connection)
            self._disconnect()
            raise CommitError(f"The SQLite file {self._path!r} could not be written: {error}") from error
        self._committed(unit)

    def _connected(self, *, durable: bool) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = connect(self._path, self._synchronous)
            self._is_durable = True
        if durable != self._is_durable and self._synchronous == "FULL":
            # Frames written without a sync are synced by the next durable commit: the log is one file.
            self._connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._is_durable = durable
        return self._connection

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        self._numbers.clear()
        with contextlib.suppress(sqlite3.Error):  # SQLite may have rolled back by itself
            connection.execute("ROLLBACK")

    def _translated(self, error: Exception) -> BaseException:
        if not isinstance(error, sqlite3.Error):
            return error
        self._disconnect()
        translated: StemError = AdapterError(f"The SQLite file {self._path!r}: {error}")
        translated.__cause__ = error
        return translated

    def _disconnect(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None
        self._watch.forget()
