"""One file as one process has it open: its writer, its reader, and who waits for what."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Final, TypeVar
from urllib.parse import unquote

from stem_core.builtin.sqlite.calls import Call
from stem_core.builtin.sqlite.reader import Reader
from stem_core.builtin.sqlite.unit import Unit, listed
from stem_core.builtin.sqlite.watch import Watch
from stem_core.builtin.sqlite.writer import Writer
from stem_core.builtin.waiters import Waiters
from stem_core.clock import Clock
from stem_core.errors import AdapterError, ConfigurationError
from stem_core.ports.specs import AdapterOptions
from stem_core.url import mask, query_of, without_query

__all__ = ["Database", "Location", "database_of", "location_of"]

T = TypeVar("T")
Key = tuple[int, str]

_SYNCHRONOUS: Final = {"full": "FULL", "normal": "NORMAL"}


class Location:
    """Where the file is, how careful to be with it, and whose clock it runs by."""

    def __init__(self, path: str, synchronous: str, clock: Clock) -> None:
        self.path = path
        self.synchronous = synchronous
        self.clock = clock

    @property
    def key(self) -> tuple[int, str, str, int]:
        """The process is part of it: neither connection nor thread may be used after a fork."""
        return os.getpid(), self.path, self.synchronous, id(self.clock)


def location_of(url: str, options: AdapterOptions) -> Location:
    """``sqlite:///relative.db`` and ``sqlite:////absolute.db``, with ``?synchronous=full`` (the default: what was
    acknowledged survives a power failure) or ``normal`` (it survives a crash of every process).

    :raises ConfigurationError: it names no file, or has an option that is not one of these.
    """
    path = unquote(without_query(url).partition("://")[2])
    wanted = query_of(url)
    synchronous = _SYNCHRONOUS.get(wanted.pop("synchronous", "full").lower())
    if synchronous is None or wanted:
        raise ConfigurationError(f"{mask(url)!r}: the one option is synchronous=full or synchronous=normal")
    if path.strip("/") == ":memory:":
        raise ConfigurationError(
            f"{mask(url)!r}: a SQLite database in memory is seen by one connection only; use memory:// (this "
            "process) or a file, sqlite:///stem.db"
        )
    if not path.startswith("/") or path == "/" or path.endswith("/"):
        raise ConfigurationError(
            f"{mask(url)!r} names no file; write sqlite:///relative.db or sqlite:////absolute/path.db"
        )
    return Location(os.path.realpath(path[1:]), synchronous, options.clock)


class Database:
    """Shared by every adapter of this process on the file; its threads run while one of them is open."""

    def __init__(self, location: Location) -> None:
        self.clock = location.clock
        self.lock = threading.Lock()  # guards the waiters
        self.for_messages: Waiters[Key] = Waiters()  # by namespace and queue
        self.for_results: Waiters[Key] = Waiters()  # by namespace and task id
        self.for_broadcasts: Waiters[int] = Waiters()  # by namespace
        self._location = location
        self._gate = threading.Lock()  # guards the three below
        self._users = 0
        self._writer: Writer | None = None
        self._reader: Reader | None = None

    def acquire(self) -> None:
        with self._gate:
            self._users += 1
            if self._writer is None or self._reader is None:
                path, synchronous = self._location.path, self._location.synchronous
                watch = Watch(self._is_awaited, self._changed)
                self._writer = Writer(path, synchronous, self.clock, self._committed, watch)
                self._reader = Reader(path, synchronous, self.clock)

    def release(self) -> None:
        """Blocks until what was submitted is written, when this was the last user."""
        with self._gate:
            self._users -= 1
            if self._users == 0 and self._writer is not None and self._reader is not None:
                self._writer.stop()
                self._reader.stop()
                self._writer = self._reader = None
        with self.lock:
            for waiters in (self.for_messages, self.for_results, self.for_broadcasts):
                waiters.wake_all()

    def write(self, call: Call[Unit]) -> None:
        self._running(self._writer).submit(call)

    def read(self, call: Call[Unit]) -> None:
        self._running(self._reader).submit(call)

    def watch(self) -> None:
        """Look for other processes' commits: somebody waits."""
        self._running(self._writer).watch()

    def _running(self, thread: T | None) -> T:
        if thread is None:
            raise AdapterError(f"The SQLite file {self._location.path!r} is closed; await open() first")
        return thread

    def _is_awaited(self) -> bool:
        return bool(self.for_messages) or bool(self.for_results) or bool(self.for_broadcasts)

    def _committed(self, unit: Unit) -> None:
        """Wake who waits in this process for what a transaction of this process did."""
        with self.lock:
            for queue in unit.woken:
                self.for_messages.wake(queue)
            for ns, statuses in unit.recorded if self.for_results else ():
                for id, status in statuses.items():
                    if status.terminal:
                        self.for_results.wake((ns, id))
            for namespace in unit.broadcast:
                self.for_broadcasts.wake(namespace)

    def _changed(self, unit: Unit) -> None:
        """Somebody committed something: wake receivers to look, and who waits for what is now finished."""
        with self.lock:
            self.for_messages.wake_all()
            self.for_broadcasts.wake_all()
            awaited = list(self.for_results)
        finished = unit.rows(
            "SELECT ns, id FROM statuses WHERE id IN (SELECT value FROM json_each(?)) "
            "AND state IN ('succeeded', 'failed', 'cancelled')",
            (listed(id for _, id in awaited),),
        )
        with self.lock:
            for ns, id in finished:
                self.for_results.wake((ns, id))


#: Open files of this process; gone when no adapter holds them. The one module state there is, for the writer
#: must be one however many adapters there are.
_DATABASES: Final[weakref.WeakValueDictionary[tuple[int, str, str, int], Database]] = (
    weakref.WeakValueDictionary()
)
_DATABASES_LOCK: Final = threading.Lock()


def database_of(location: Location) -> Database:
    """The process's one :class:`Database` of a location."""
    with _DATABASES_LOCK:
        database = _DATABASES.get(location.key)
        if database is None:
            database = _DATABASES[location.key] = Database(location)
        return database
