"""What an operation runs in: one write transaction's connection, time and consequences."""

from __future__ import annotations

import functools
import itertools
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from stem_core.status import TaskStatus

__all__ = ["Unit", "insert", "listed"]

#: Rows in one INSERT: few texts to prepare, and few crossings into SQLite, each of which lets go of the GIL.
_CHUNKS: Final = (128, 32, 8, 1)


class Unit:
    """Operations of one transaction share it. They may run twice: the first run may be rolled back."""

    __slots__ = ("broadcast", "connection", "now", "numbers", "recorded", "woken")

    def __init__(
        self, connection: sqlite3.Connection, now: float, numbers: dict[tuple[int, str], int]
    ) -> None:
        self.connection = connection
        self.now = now
        self.numbers = numbers  # (ns, name) -> queue; forgotten on a rollback
        self.woken: set[tuple[int, str]] = set()  # (ns, queue name) with something new to deliver
        self.recorded: list[tuple[int, Mapping[str, TaskStatus]]] = []  # (ns, statuses by id) as they are now
        self.broadcast: set[int] = set()  # ns with a new broadcast

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:
        return self.connection.execute(sql, parameters)

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        return self.connection.execute(sql, parameters).fetchall()

    def value(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        """The first column of the first row, None without one."""
        row = self.connection.execute(sql, parameters).fetchone()
        return None if row is None else row[0]

    def namespace(self, name: str) -> int:
        """The number of a namespace, new if need be."""
        self.execute("INSERT INTO namespaces (name) VALUES (?) ON CONFLICT DO NOTHING", (name,))
        return int(self.value("SELECT ns FROM namespaces WHERE name = ?", (name,)))

    def queue(self, ns: int, name: str) -> int:
        """The number of a queue, new if need be."""
        number = self.numbers.get((ns, name))
        if number is None:
            self.execute("INSERT INTO queues (ns, name) VALUES (?, ?) ON CONFLICT DO NOTHING", (ns, name))
            number = int(self.value("SELECT queue FROM queues WHERE ns = ? AND name = ?", (ns, name)))
            self.numbers[ns, name] = number
        return number


def insert(unit: Unit, into: str, width: int, rows: Sequence[Sequence[Any]], then: str = "") -> None:
    """``INSERT INTO {into} VALUES ... {then}`` for rows of ``width`` columns, many in each statement."""
    start = 0
    for size in _CHUNKS:
        while len(rows) - start >= size:
            values = list(itertools.chain.from_iterable(rows[start : start + size]))
            unit.execute(_insertion(into, width, size, then), values)
            start += size


@functools.lru_cache(maxsize=64)
def _insertion(into: str, width: int, size: int, then: str) -> str:
    """The text of one INSERT: long, and the same object each time, which SQLite's cache of statements finds sooner."""
    one = f"({','.join('?' * width)})"
    return f"INSERT INTO {into} VALUES {','.join([one] * size)} {then}"  # noqa: S608 (our own words)


def listed(values: Iterable[Any]) -> str:
    """Values as one parameter for ``IN (SELECT value FROM json_each(?))``."""
    return msgspec.json.encode(list(values)).decode()
