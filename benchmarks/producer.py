"""What a publish costs in the producer itself: ``python -m benchmarks.producer``.

A broker and backend that store nothing take the messages, so that the figures are the producer's own. Printed
beside them, from the same run: the least a publish can cost (encode and seal alone), and the built-in stores.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from stem_core import BackendCapabilities, BrokerCapabilities, Stem
from stem_core.envelope import Envelope, Message, new_id
from stem_core.sealing import seal
from stem_core.status import StatusUpdate

RUNS = 5


class NoBroker:
    """Takes messages and forgets them."""

    capabilities = BrokerCapabilities(delay=True, priority_levels=10)

    async def open(self) -> None: ...
    async def close(self) -> None: ...
    def join(self, backend: object) -> None: ...
    async def publish(self, messages: Sequence[Message]) -> Sequence[bool]:
        return [True] * len(messages)

    async def receive(self, *_: Any, **__: Any) -> Sequence[Any]:
        return ()

    async def settle(self, *_: Any) -> Sequence[bool]:
        return ()


class NoBackend:
    """Takes statuses and forgets them."""

    capabilities = BackendCapabilities(ttl=True)

    async def open(self) -> None: ...
    async def close(self) -> None: ...
    async def record(self, updates: Sequence[StatusUpdate]) -> Sequence[bool]:
        return [True] * len(updates)

    async def fetch(self, ids: Sequence[str]) -> Sequence[None]:
        return [None] * len(ids)

    async def wait(self, id: str, timeout: float) -> None: ...


def nowhere() -> Stem:
    return Stem(NoBroker(), backend=NoBackend())  # type: ignore[arg-type]


async def many(stem: Stem, count: int) -> None:
    add = task_of(stem)
    await stem.enqueue_many([add.call(i, 2) for i in range(count)])


async def concurrent(stem: Stem, count: int) -> None:
    add = task_of(stem)

    async def some(n: int) -> None:
        for i in range(n):
            await add.enqueue(i, 2)

    await asyncio.gather(*(some(count // 100) for _ in range(100)))


async def one_by_one(stem: Stem, count: int) -> None:
    add = task_of(stem)
    for i in range(count):
        await add.enqueue(i, 2)


def task_of(stem: Stem) -> Any:
    if "add" in stem.tasks:
        return stem.tasks["add"]

    @stem.task(name="add")
    async def add(x: int, y: int) -> int:
        return x + y

    return add


Scenario = Callable[[Stem, int], Awaitable[None]]


async def rate(stem: Stem, scenario: Scenario, count: int) -> float:
    """Publishes per second, the best of a few runs: what else the machine does only ever takes away."""
    async with stem:
        await scenario(stem, 100)
        best = 0.0
        for _ in range(RUNS):
            start = time.perf_counter()
            await scenario(stem, count)
            best = max(best, count / (time.perf_counter() - start))
        return best


def least(count: int) -> float:
    """Publishes per second if a publish were its encode and seal."""
    from datetime import UTC, datetime

    now = datetime.now(UTC)
    start = time.perf_counter()
    for i in range(count):
        args = msgspec.json.encode([[i, 2], {}])
        envelope = Envelope(
            id=new_id(), name="add", queue="default", args=args, encoder="json", enqueued_at=now
        )
        seal(envelope, namespace="stem")
    return count / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--profile", action="store_true", help="profile enqueue_many and exit")
    arguments = parser.parse_args()
    count: int = arguments.count
    if arguments.profile:
        profile = cProfile.Profile()
        profile.enable()
        asyncio.run(many(nowhere(), count))
        profile.disable()
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)
        return
    floor = max(least(count) for _ in range(RUNS))
    print(f"{'encode and seal alone':42} {floor:>10,.0f}/s")
    with tempfile.TemporaryDirectory() as directory:
        sqlite = f"sqlite:///{Path(directory) / 'bench.db'}"
        rows: list[tuple[str, Stem, Scenario, int]] = [
            ("enqueue_many, no store", nowhere(), many, count),
            ("enqueue, 100 coroutines, no store", nowhere(), concurrent, count),
            ("enqueue, one by one, no store", nowhere(), one_by_one, count // 5),
            ("enqueue_many, memory", Stem("memory://"), many, count),
            ("enqueue, 100 coroutines, memory", Stem("memory://"), concurrent, count),
            ("enqueue_many, SQLite", Stem(sqlite), many, count),
            ("enqueue, 100 coroutines, SQLite", Stem(sqlite), concurrent, count // 5),
        ]
        for name, stem, scenario, n in rows:
            found = asyncio.run(rate(stem, scenario, n))
            print(f"{name:42} {found:>10,.0f}/s {found / floor:>6.0%} of encode and seal")


if __name__ == "__main__":
    main()
