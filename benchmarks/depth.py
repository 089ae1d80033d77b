"""What a task costs with many others queued: fill a queue, then enqueue and work off some more, over and over.

At each depth the same few thousand tasks are put on top and as many worked off by one worker, so that at least that
many others wait all the time. Medians of wall time and of this process's processor time per task; the second is what
other programs on the machine disturb least.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass

from stem_core import Stem, Worker
from stem_core.worker.memory import resident

__all__ = ["Cost", "measure", "report"]

QUEUE = "depth"
BATCH = 500
SAMPLE = 5_000
ROUNDS = 7


@dataclass(frozen=True)
class Cost:
    """Seconds per task at one depth, and bytes of this process with that many queued."""

    depth: int
    enqueue: float
    wall: float
    processor: float
    memory: int


class Watch:
    """Notes both clocks when the tenth and when the last of a sample runs: the worker's start is not counted."""

    def __init__(self, sample: int) -> None:
        self.first, self.last = max(1, sample // 10), sample
        self.done = 0
        self.seen: dict[int, tuple[float, float]] = {}
        self.over = asyncio.Event()

    def tick(self) -> None:
        self.done += 1
        if self.done in {self.first, self.last}:
            self.seen[self.done] = time.perf_counter(), time.process_time()
            if self.done == self.last:
                self.over.set()

    def per_task(self) -> tuple[float, float]:
        (wall, processor), (later, more) = self.seen[self.first], self.seen[self.last]
        return (later - wall) / (self.last - self.first), (more - processor) / (self.last - self.first)


async def measure(url: str, depths: list[int], sample: int = SAMPLE) -> list[Cost]:
    """The cost at each depth, smallest first."""
    watch = Watch(1)
    stem = Stem(url, namespace="depth")

    @stem.task(name="depth.tick", queue=QUEUE)
    async def tick() -> None:
        watch.tick()

    async def fill(count: int) -> float:
        started = time.perf_counter()
        for first in range(0, count, BATCH):
            await stem.enqueue_many([tick.call() for _ in range(min(BATCH, count - first))])
        return (time.perf_counter() - started) / max(1, count)

    costs = []
    async with stem:
        for depth in sorted(depths):
            waiting = (await stem.broker.stats(QUEUE)).ready
            await fill(depth - waiting)
            memory = resident()
            rounds: list[tuple[float, float, float]] = []
            for _ in range(ROUNDS):
                missing = depth + sample - (await stem.broker.stats(QUEUE)).ready
                enqueue = await fill(missing)
                watch = Watch(sample)
                async with Worker(stem, queues=[QUEUE], concurrency=200):
                    await watch.over.wait()
                rounds.append((enqueue, *watch.per_task()))
            enqueue, wall, processor = (statistics.median(values) for values in zip(*rounds, strict=True))
            costs.append(Cost(depth, enqueue, wall, processor, memory))
        await stem.broker.purge(QUEUE)
    return costs


async def report(url: str, kind: str, depths: list[int]) -> str:
    """For people: costs in microseconds, and each against the shallowest queue's."""
    costs = await measure(url, depths)
    first = costs[0]
    lines = [
        f"{kind:10}{'queued':>12}{'enqueue, us':>14}{'a task, us':>14}{'ratio':>8}{'CPU, us':>12}{'ratio':>8}"
    ]
    lines += [
        f"{'':10}{cost.depth:12,}{cost.enqueue * 1e6:14.1f}{cost.wall * 1e6:14.1f}{cost.wall / first.wall:8.2f}"
        f"{cost.processor * 1e6:12.1f}{cost.processor / first.processor:8.2f}"
        f"{cost.memory / 2**20:8.1f}"
        for cost in costs
    ]
    return "\n".join(lines)
