"""Stem on SQLite beside a raw loop of batched SQL, in one run: ``python -m benchmarks.sqlite [--count N]``.

No-op async tasks whose results are stored, one worker in this process; the limit is
``benchmarks/limits/sqlite_raw.py`` with the same number of messages of the same size.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import loop
from benchmarks.figures import Round, gather, table
from benchmarks.limits import sqlite_raw
from stem_core import Stem, Worker

BATCH = 200
PAYLOAD = "x" * 100


async def noop(text: str) -> None:
    """What the worker runs."""
    del text


def raw(count: int) -> tuple[float, float]:
    """Messages per second of the raw loop: in, and out again."""
    with tempfile.TemporaryDirectory() as folder:
        connection = sqlite_raw.opened(str(Path(folder, "raw.db")))
        try:
            inserts = _rate(count, lambda: sqlite_raw.insert(connection, count, BATCH))
            drains = _rate(count, lambda: sqlite_raw.drain(connection, BATCH))
        finally:
            connection.close()
    return inserts, drains


async def stem(count: int) -> tuple[float, float]:
    """Tasks per second of Stem: enqueued in batches, and worked off until the last result is stored."""
    with tempfile.TemporaryDirectory() as folder:
        app = Stem(f"sqlite:///{Path(folder, 'stem.db')}")
        task = app.task(noop)
        async with app:
            call = task.call(PAYLOAD)
            started = time.perf_counter()
            for first in range(0, count, BATCH):
                await app.enqueue_many([call] * min(BATCH, count - first))
            enqueued = count / (time.perf_counter() - started)
            worker = Worker(app)
            started = time.perf_counter()
            await worker.run(until_empty=True)
            drained = count / (time.perf_counter() - started)
            assert worker.stats.succeeded == count, worker.stats
    return enqueued, drained


def measure(count: int) -> list[Round]:
    """One round: the limit just before and just after ours."""
    before = raw(count)
    enqueued, drained = loop.run(stem(count))
    after = raw(count)
    return [
        Round("enqueue_many, 200 a call", enqueued, (before[0] + after[0]) / 2),
        Round("drain, one worker", drained, (before[1] + after[1]) / 2, aim=0.35),
    ]


def _rate(count: int, work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return count / (time.perf_counter() - started)


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    rounds = [each for _ in range(arguments.rounds) for each in measure(arguments.count)]
    print(table(gather("sqlite", rounds)))


if __name__ == "__main__":
    main()
