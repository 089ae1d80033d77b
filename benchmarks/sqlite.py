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
from typing import NamedTuple

from benchmarks import loop
from benchmarks.figures import MICROSECONDS, Round, gather, table
from benchmarks.limits import sqlite_raw
from stem_core import Stem, Worker

BATCH = 200
PAYLOAD = "x" * 100


class Pace(NamedTuple):
    """How fast something went."""

    per_second: float
    processor: float
    """Seconds of this process's processors for each."""


async def noop(text: str) -> None:
    """What the worker runs."""
    del text


def raw(count: int) -> tuple[Pace, Pace]:
    """The raw loop: in, and out again."""
    with tempfile.TemporaryDirectory() as folder:
        connection = sqlite_raw.opened(str(Path(folder, "raw.db")))
        try:
            inserts = _pace(count, lambda: sqlite_raw.insert(connection, count, BATCH))
            drains = _pace(count, lambda: sqlite_raw.drain(connection, BATCH))
        finally:
            connection.close()
    return inserts, drains


async def stem(count: int) -> tuple[Pace, Pace]:
    """Stem: enqueued in batches, and worked off until the last result is stored."""
    with tempfile.TemporaryDirectory() as folder:
        app = Stem(f"sqlite:///{Path(folder, 'stem.db')}")
        task = app.task(noop)
        async with app:
            call = task.call(PAYLOAD)
            started = time.perf_counter(), time.process_time()
            for first in range(0, count, BATCH):
                await app.enqueue_many([call] * min(BATCH, count - first))
            enqueued = _since(started, count)
            worker = Worker(app)
            started = time.perf_counter(), time.process_time()
            await worker.run(until_empty=True)
            drained = _since(started, count)
            assert worker.stats.succeeded == count, worker.stats
    return enqueued, drained


def measure(count: int) -> list[Round]:
    """One round: the limit just before and just after ours."""
    before = raw(count)
    enqueued, drained = loop.run(stem(count))
    after = raw(count)
    rates = [(one.per_second + two.per_second) / 2 for one, two in zip(before, after, strict=True)]
    return [
        Round("enqueue_many, 200 a call", enqueued.per_second, rates[0]),
        Round("drain, one worker", drained.per_second, rates[1], aim=0.35),
        Round(
            "drain, processor time of a task",
            drained.processor,
            (before[1].processor + after[1].processor) / 2,
            unit=MICROSECONDS,
        ),
    ]


def _pace(count: int, work: Callable[[], None]) -> Pace:
    started = time.perf_counter(), time.process_time()
    work()
    return _since(started, count)


def _since(started: tuple[float, float], count: int) -> Pace:
    wall, processor = started
    return Pace(count / (time.perf_counter() - wall), (time.process_time() - processor) / count)


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
