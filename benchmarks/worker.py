"""What the worker itself costs: ``python -m benchmarks.worker [--count N] [--profile]``.

No-op async tasks on ``memory://`` with results kept, drained by one worker, beside the least that asyncio can do
with the same no-ops: ``create_task`` each and await them all. Rounds are interleaved and the medians compared,
so that a machine's mood hits both. Aim: a ratio of 0.12. With ``--growth`` the cost per task of 1e3 to 1e6
queued ones and the memory after them.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import pstats
import statistics
import time

from stem_core import Stem
from stem_core.worker import Worker
from stem_core.worker.memory import resident

BATCH = 1_000


async def noop() -> None:
    """What every contender runs."""


async def create_task(count: int) -> float:
    """Tasks per second of asyncio alone."""
    started = time.perf_counter()
    for _ in range(count // BATCH):
        await asyncio.gather(*[asyncio.create_task(noop()) for _ in range(BATCH)])
    return count / (time.perf_counter() - started)


async def drain(count: int, concurrency: int, profile: cProfile.Profile | None = None) -> float:
    """Tasks per second of a worker, from its first receive to the last result stored."""
    stem = Stem("memory://")
    task = stem.task(noop)
    async with stem:
        call = task.call()
        for start in range(0, count, BATCH):
            await stem.enqueue_many([call] * min(BATCH, count - start))
        gc.collect()
        worker = Worker(stem, concurrency=concurrency)
        if profile is not None:
            profile.enable()
        started = time.perf_counter()
        working = asyncio.ensure_future(worker.run())
        while worker.stats.succeeded < count:  # noqa: ASYNC110 - 100 looks a second cost nothing
            await asyncio.sleep(0.01)
        rate = count / (time.perf_counter() - started)
        if profile is not None:
            profile.disable()
        worker.stop()
        await working
        return rate


async def compare(count: int, rounds: int, concurrency: int) -> None:
    """Both contenders, in turns."""
    limits, rates = [], []
    for _ in range(rounds):
        limits.append(await create_task(count))
        rates.append(await drain(count, concurrency))
    limit, rate = statistics.median(limits), statistics.median(rates)
    print(f"asyncio.create_task  {limit:10,.0f} tasks/s")
    print(f"worker on memory://  {rate:10,.0f} tasks/s")
    print(f"ratio                {rate / limit:10.3f}   (aim 0.12)")


async def growth(concurrency: int) -> None:
    """Cost per task and memory, from a short queue to a long one."""
    for count in (1_000, 10_000, 100_000, 1_000_000):
        rate = await drain(count, concurrency)
        gc.collect()
        print(f"{count:9,} queued: {1e6 / rate:6.1f} us per task, {resident() / 2**20:7.1f} MiB after them")


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--concurrency", type=int, default=100)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--growth", action="store_true")
    arguments = parser.parse_args()
    if arguments.profile:
        profile = cProfile.Profile()
        asyncio.run(drain(arguments.count, arguments.concurrency, profile))
        pstats.Stats(profile).sort_stats("tottime").print_stats(40)
    elif arguments.growth:
        asyncio.run(growth(arguments.concurrency))
    else:
        asyncio.run(compare(arguments.count, arguments.rounds, arguments.concurrency))


if __name__ == "__main__":
    main()
