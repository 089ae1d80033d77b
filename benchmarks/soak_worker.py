"""The worker process of a soak: ``python -m benchmarks.soak_worker URL NAMESPACE --messages N``.

Says ``{"ready": pid}``, then ``{"done": n}`` four times a second, works until a line comes in, and ends with what it
counted. With ``--produce`` it enqueues too, since nobody else reaches a store in memory.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import sys
import time
from array import array
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from stem_core import Stem, Task, Worker

QUEUE = "soak"
BATCH = 500
TENTHS = 10


class Tally:
    """What ran: how many, and sums that tell a lost or doubled number; claims and the clock by tenth."""

    def __init__(self, messages: int) -> None:
        self.messages = messages
        self.done = self.total = self.squares = 0
        self.claims = [array("d") for _ in range(TENTHS)]
        self.began: list[float] = []

    @property
    def tenth(self) -> int:
        return min(TENTHS - 1, self.done * TENTHS // self.messages)

    def count(self, number: int) -> None:
        while len(self.began) <= self.tenth:
            self.began.append(time.perf_counter())
        self.done += 1
        self.total += number
        self.squares += number * number

    def claimed(self, seconds: float) -> None:
        self.claims[self.tenth].append(seconds)

    def answer(self, ended: float) -> dict[str, Any]:
        bounds = [*self.began, ended]
        return {
            "done": self.done,
            "total": self.total,
            "squares": self.squares,
            "claim_p50": [_quantile(claims, 50) for claims in self.claims],
            "claim_p99": [_quantile(claims, 99) for claims in self.claims],
            "seconds": [end - begin for begin, end in itertools.pairwise(bounds)],
        }


def warm_up(messages: int) -> int:
    """How many of the messages come first, before anything is measured."""
    return min(5_000, messages // 10)


def application(
    url: str, namespace: str, ttl: float, tally: Tally | None = None
) -> tuple[Stem, Task[[int], int]]:
    """The Stem of a soak and its one task; results live ``ttl`` seconds."""
    stem = Stem(url, namespace=namespace)

    @stem.task(name="soak.count", queue=QUEUE, result_ttl=ttl)
    async def count(number: int) -> int:
        if tally is not None:
            tally.count(number)
        return number

    return stem, count


async def produce(
    stem: Stem, task: Task[[int], int], numbers: range, *, backlog: int, done: Callable[[], int]
) -> None:
    """Enqueue every number, but never be more than ``backlog`` ahead of what is done."""
    for first in range(numbers.start, numbers.stop, BATCH):
        while first - done() > backlog:  # noqa: ASYNC110 - the other side is another process
            await asyncio.sleep(0.02)
        await stem.enqueue_many([task.call(n) for n in range(first, min(first + BATCH, numbers.stop))])


async def work(url: str, namespace: str, messages: int, ttl: float, backlog: int | None) -> None:
    """Work until a line comes in."""
    tally = Tally(messages)
    stem, task = application(url, namespace, ttl, tally)
    last = time.perf_counter()
    async with stem:
        setattr(stem.broker, "receive", _timed(stem.broker.receive, tally))  # noqa: B010 - as a stopwatch would
        async with Worker(stem, queues=[QUEUE], concurrency=200):
            _say({"ready": True})
            stop = asyncio.ensure_future(asyncio.to_thread(sys.stdin.readline))
            producing = asyncio.ensure_future(
                produce(
                    stem,
                    task,
                    range(messages if backlog else 0),
                    backlog=backlog or 0,
                    done=lambda: tally.done,
                )
            )
            said = -1
            while not stop.done():
                if tally.done != said:
                    said, last = tally.done, time.perf_counter()
                _say({"done": said})
                await asyncio.wait([stop], timeout=0.25)
            await producing
        stats = {queue: await stem.broker.stats(queue) for queue in (QUEUE,)}[QUEUE]
    _say(tally.answer(last) | {"left": stats.ready + stats.scheduled + stats.leased + stats.dead})


def _timed(
    receive: Callable[..., Awaitable[Sequence[Any]]], tally: Tally
) -> Callable[..., Awaitable[Sequence[Any]]]:
    """``receive``, whose time counts after the warm-up, and where the one before got all it asked for: then there
    was something to claim, and nothing to wait for.
    """
    full = False

    async def timed(queues: Sequence[str], *, limit: int, **named: Any) -> Sequence[Any]:
        nonlocal full
        counts = full and tally.done >= warm_up(tally.messages)
        started = time.perf_counter()
        deliveries = await receive(queues, limit=limit, **named)
        if deliveries and counts:
            tally.claimed(time.perf_counter() - started)
        full = len(deliveries) == limit
        return deliveries

    return timed


def _quantile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1] if len(values) > 1 else sum(values)


def _say(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)


def main() -> None:
    """Parse and work."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("url")
    parser.add_argument("namespace")
    parser.add_argument("--messages", type=int, required=True)
    parser.add_argument("--ttl", type=float, default=10.0)
    parser.add_argument("--produce", type=int, metavar="BACKLOG", help="enqueue, too, this far ahead")
    given = parser.parse_args()
    asyncio.run(work(given.url, given.namespace, given.messages, given.ttl, given.produce))


if __name__ == "__main__":
    main()
