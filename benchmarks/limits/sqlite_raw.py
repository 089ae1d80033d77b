"""The limit for a queue on SQLite: a raw loop of batched SQL with nothing but the standard library.

It moves the same bytes as a no-op task on ``sqlite://``: a sealed message of 300 bytes goes in with its
``queued`` row; 200 at a time are leased, get a result, and are removed. One connection, one thread, WAL,
``synchronous=FULL`` where a caller is told that something is stored, ``NORMAL`` for leases, which
may be lost with the machine's power. Ids rise, as UUIDv7 do. It keeps no order of levels, no fence, no ids apart from the key.

    python benchmarks/limits/sqlite_raw.py [--json] [--messages N] [--batch N]
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import tempfile
import time
from pathlib import Path

MESSAGE = os.urandom(300)
STATUS = os.urandom(120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--messages", type=int, default=50_000)
    parser.add_argument("--batch", type=int, default=200)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        connection = opened(str(Path(folder, "raw.db")))
        inserts = rate(arguments.messages, lambda: insert(connection, arguments.messages, arguments.batch))
        drains = rate(arguments.messages, lambda: drain(connection, arguments.batch))
        connection.close()
    figures = {"inserts_per_second": round(inserts), "drains_per_second": round(drains)}
    if arguments.json:
        print(json.dumps({**figures, "messages": arguments.messages, "batch": arguments.batch}))
    else:
        for name, value in figures.items():
            print(f"{name.replace('_', ' '):22} {value:>10,}")


def opened(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(
        "CREATE TABLE messages (seq INTEGER PRIMARY KEY, id TEXT NOT NULL, lease REAL, body BLOB NOT NULL)"
    )
    connection.execute("CREATE INDEX waiting ON messages (seq) WHERE lease IS NULL")
    connection.execute(
        "CREATE TABLE statuses (id TEXT PRIMARY KEY, state INTEGER NOT NULL, body BLOB NOT NULL)"
    )
    return connection


def insert(connection: sqlite3.Connection, count: int, batch: int) -> None:
    for start in range(0, count, batch):
        ids = [f"{place:032x}" for place in range(start, min(start + batch, count))]
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(
            "INSERT INTO messages (id, body) VALUES (?, ?)", [(each, MESSAGE) for each in ids]
        )
        connection.executemany("INSERT INTO statuses VALUES (?, 0, ?)", [(each, STATUS) for each in ids])
        connection.execute("COMMIT")


def drain(connection: sqlite3.Connection, batch: int) -> None:
    while True:
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("BEGIN IMMEDIATE")
        rows = connection.execute(
            "UPDATE messages SET lease = ? WHERE seq IN (SELECT seq FROM messages WHERE lease IS NULL "
            "ORDER BY seq LIMIT ?) RETURNING seq, id, body",
            (time.time() + 30, batch),
        ).fetchall()
        connection.execute("COMMIT")
        if not rows:
            return
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(
            "UPDATE statuses SET state = 3, body = ? WHERE id = ?", [(STATUS, id) for _, id, _ in rows]
        )
        connection.executemany("DELETE FROM messages WHERE seq = ?", [(seq,) for seq, _, _ in rows])
        connection.execute("COMMIT")


def rate(count: int, work: object) -> float:
    assert callable(work)
    start = time.perf_counter()
    work()
    return count / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
