"""The file: its tables, its version, and how a connection to it is made.

Times are epoch seconds (REAL). Everything of a namespace carries its number ``ns``, of a queue its
number ``queue``. A message is one row of ``messages``, never rewritten, and one row in exactly one of ``ready``,
``scheduled``, ``leased`` and ``dead``, which carry its counts. So neither a claim nor a lease's renewal
writes its bytes again, and a renewal touches no index a claim reads from.

namespaces    ns: number · name
queues        queue: number · ns · name
messages      seq: place in publish order, larger than every live one's · queue · id: unique in its queue · priority:
              0 to 9 · once: 0 or 1 · not_before, delay: as published · sealed: the bytes · placed: 1 says the publisher
              made its ready or scheduled row too; without it (INSERT INTO messages (queue, id, sealed)) a trigger
              makes it ready
ready         queue, level (minus the priority), seq: in this order they are delivered · since: when it became ready ·
              generation, attempt, deliveries: as in Delivery, deliveries without the next
scheduled     seq · queue · level · due · generation, attempt, deliveries
leased        seq · queue · level · token: random, new at each hand-out; with seq it is the receipt · until ·
              generation, attempt, deliveries (this one included)
dead          place: order of death · seq · queue · reason, detail · at · generation, attempt
remembered    n: order of settling · queue, id: a ``once`` message that was settled, withdrawn or purged · until
statuses      place: order of first recording · ns, id · state, name, queue, enqueued: columns to list by · expires: exact,
              NULL for ever · prune: expires rounded up, the only one indexed, so that most renewals rewrite no index ·
              body: msgpack of TaskStatus
groups        grp: number · ns, id · remaining: members without an outcome · has_callback · completed_by, closed:
              as in GroupRecord · deadline · ttl · expires
group_members grp, member · position: in the body · outcome: msgpack of Outcome, NULL while there is none
callbacks     grp · body: msgpack of a sequence of Callback
state         ns, key · value · version · expires
limits        ns, key · arrival: GCRA's theoretical arrival time; the row means nothing once that has passed
broadcasts    n: never used twice · ns · channel · data · at
counters      name ("state": the last version given out) · value
"""

from __future__ import annotations

import functools
import sqlite3
import time
from collections.abc import Callable
from typing import Final, TypeVar

from stem_core.errors import AdapterError, ConfigurationError

__all__ = ["SCHEMA_VERSION", "connect", "is_busy", "patiently"]

SCHEMA_VERSION: Final = 1

_DDL: Final = """
CREATE TABLE namespaces (ns INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE queues (
    queue INTEGER PRIMARY KEY, ns INTEGER NOT NULL, name TEXT NOT NULL, UNIQUE (ns, name));
CREATE TABLE messages (
    seq INTEGER PRIMARY KEY, queue INTEGER NOT NULL, id TEXT NOT NULL, priority INTEGER NOT NULL DEFAULT 0,
    once INTEGER NOT NULL DEFAULT 0, not_before REAL, delay REAL NOT NULL DEFAULT 0,
    placed INTEGER NOT NULL DEFAULT 0, sealed BLOB NOT NULL, UNIQUE (id, queue));
CREATE TABLE ready (
    queue INTEGER NOT NULL, level INTEGER NOT NULL, seq INTEGER NOT NULL, since REAL NOT NULL,
    generation INTEGER NOT NULL DEFAULT 0, attempt INTEGER NOT NULL DEFAULT 0,
    deliveries INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (queue, level, seq)) WITHOUT ROWID;
CREATE TABLE scheduled (
    seq INTEGER PRIMARY KEY, queue INTEGER NOT NULL, level INTEGER NOT NULL, due REAL NOT NULL,
    generation INTEGER NOT NULL, attempt INTEGER NOT NULL, deliveries INTEGER NOT NULL);
CREATE INDEX scheduled_due ON scheduled (queue, due);
CREATE TABLE leased (
    seq INTEGER PRIMARY KEY, queue INTEGER NOT NULL, level INTEGER NOT NULL, token INTEGER NOT NULL,
    until REAL NOT NULL, generation INTEGER NOT NULL, attempt INTEGER NOT NULL, deliveries INTEGER NOT NULL);
CREATE INDEX leased_until ON leased (queue, until);
CREATE TABLE dead (
    place INTEGER PRIMARY KEY AUTOINCREMENT, seq INTEGER NOT NULL, queue INTEGER NOT NULL,
    reason TEXT NOT NULL, detail TEXT NOT NULL, at REAL NOT NULL,
    generation INTEGER NOT NULL, attempt INTEGER NOT NULL);
CREATE INDEX dead_queue ON dead (queue, place);
CREATE TRIGGER messages_of_strangers AFTER INSERT ON messages WHEN NEW.placed = 0 BEGIN
    INSERT INTO ready (queue, level, seq, since)
    VALUES (NEW.queue, -NEW.priority, NEW.seq, (julianday('now') - 2440587.5) * 86400.0);
END;
CREATE TABLE remembered (
    n INTEGER PRIMARY KEY, queue INTEGER NOT NULL, id TEXT NOT NULL, until REAL NOT NULL, UNIQUE (id, queue));
CREATE TABLE statuses (
    place INTEGER PRIMARY KEY, ns INTEGER NOT NULL, id TEXT NOT NULL, state TEXT NOT NULL, name TEXT,
    queue TEXT, enqueued REAL, expires REAL, prune REAL, body BLOB NOT NULL, UNIQUE (id, ns));
CREATE INDEX statuses_prune ON statuses (prune) WHERE prune IS NOT NULL;
CREATE INDEX statuses_bad ON statuses (ns, state, place) WHERE state IN ('failed', 'cancelled');
CREATE TABLE groups (
    grp INTEGER PRIMARY KEY, ns INTEGER NOT NULL, id TEXT NOT NULL, remaining INTEGER NOT NULL,
    has_callback INTEGER NOT NULL, completed_by TEXT, closed TEXT, deadline REAL,
    ttl REAL NOT NULL, expires REAL NOT NULL, UNIQUE (id, ns));
CREATE INDEX groups_expires ON groups (expires);
CREATE TABLE group_members (
    grp INTEGER NOT NULL, member TEXT NOT NULL, position INTEGER NOT NULL, outcome BLOB,
    PRIMARY KEY (grp, member)) WITHOUT ROWID;
CREATE TABLE callbacks (grp INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE state (
    ns INTEGER NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL, expires REAL, value BLOB NOT NULL,
    PRIMARY KEY (ns, key)) WITHOUT ROWID;
CREATE INDEX state_expires ON state (expires) WHERE expires IS NOT NULL;
CREATE TABLE limits (
    ns INTEGER NOT NULL, key TEXT NOT NULL, arrival REAL NOT NULL, PRIMARY KEY (ns, key)) WITHOUT ROWID;
CREATE INDEX limits_arrival ON limits (arrival);
CREATE TABLE broadcasts (
    n INTEGER PRIMARY KEY AUTOINCREMENT, ns INTEGER NOT NULL, channel TEXT NOT NULL, data BLOB NOT NULL,
    at REAL NOT NULL);
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO counters VALUES ('state', 0);
"""

#: How long a write lock held by somebody else is waited for, in all and at a time, in seconds.
_PATIENCE: Final = 60.0
_BUSY_TIMEOUT: Final = 5.0

#: A stranger's text may be no Unicode; it must not stop the queue.
_LENIENT: Final = functools.partial(str, encoding="utf-8", errors="replace")

T = TypeVar("T")


def connect(path: str, synchronous: str) -> sqlite3.Connection:
    """A connection, with the schema in place. Transactions are begun by hand, always IMMEDIATE.

    :raises ConfigurationError: the file is of a newer Stem, or of something else.
    """
    connection = sqlite3.connect(
        path, timeout=_BUSY_TIMEOUT, isolation_level=None, check_same_thread=False, cached_statements=512
    )
    connection.text_factory = _LENIENT
    try:
        patiently(path, lambda: connection.execute("PRAGMA journal_mode = WAL"))
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute(f"PRAGMA journal_size_limit = {64 * 1024 * 1024}")
        if _version(connection) != SCHEMA_VERSION:
            _create(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _create(connection: sqlite3.Connection, path: str) -> None:
    patiently(path, lambda: connection.execute("BEGIN IMMEDIATE"))
    try:
        version = _version(connection)  # another process may have been first
        if version > SCHEMA_VERSION:
            raise ConfigurationError(
                f"The SQLite file {path!r} has schema {version}, this Stem knows up to {SCHEMA_VERSION}: "
                "upgrade stem-core, or give it a file of its own"
            )
        if version == 0:
            if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                raise ConfigurationError(
                    f"The SQLite file {path!r} holds tables that are not Stem's; give Stem a file of its own"
                )
            for statement in _statements():
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _statements() -> list[str]:
    """The DDL cut into statements; ``executescript`` would commit the transaction it is in."""
    statements, current = [], ""
    for line in _DDL.splitlines(keepends=True):
        current += line
        if sqlite3.complete_statement(current):
            statements.append(current)
            current = ""
    return statements


def is_busy(error: BaseException) -> bool:
    """Whether somebody else's lock is all that is wrong. The primary result code is the low byte."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def patiently(path: str, action: Callable[[], T]) -> T:
    """Do it, again and again while the file is locked by others.

    :raises AdapterError: it stayed locked for a minute.
    """
    give_up = time.monotonic() + _PATIENCE
    while True:
        try:
            return action()
        except sqlite3.OperationalError as error:
            if not is_busy(error):
                raise
            if time.monotonic() > give_up:
                raise AdapterError(
                    f"Another program has held the write lock of the SQLite file {path!r} for {_PATIENCE:g} s; "
                    "end its transaction"
                ) from error
            time.sleep(0.005)  # some locks fail at once, without the busy timeout
