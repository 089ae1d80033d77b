"""stem-postgres against the limits of its driver and server, measured in the same run.

``python -m benchmarks.postgres [URL]`` prints each figure beside the raw one and their ratio: first the adapter's
ports alone, then Stem whole (producer and one worker process).
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple, Self

import psycopg

from benchmarks import loop
from benchmarks.limits import postgres_raw
from benchmarks.limits.postgres_raw import BATCH, PAYLOAD, Raw
from stem_core import Stem, Worker
from stem_core.envelope import Ack, Message, Settlement, new_id
from stem_core.ports.committer import Step
from stem_core.ports.specs import AdapterOptions
from stem_core.status import StatusUpdate, TaskState
from stem_postgres.plugin import POSTGRES_BACKEND, POSTGRES_BROKER

COUNT = 12_000
ROUNDS = 3
QUEUE = "default"


class Row(NamedTuple):
    """One figure beside what is possible: both a second, or both seconds."""

    name: str
    figure: float
    limit: float


class Ports:
    """The adapter with nothing above it."""

    def __init__(self, url: str) -> None:
        options = AdapterOptions(namespace=f"bench{uuid.uuid4().hex[:8]}")
        self.broker = POSTGRES_BROKER.open(url, options)
        self.backend = POSTGRES_BACKEND.open(url, options)

    async def __aenter__(self) -> Self:
        await self.broker.open()
        await self.backend.open()
        committer = self.broker.join(self.backend)
        assert committer is not None
        self.committer = committer
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.broker.close()
        await self.backend.close()

    async def publish(self, count: int) -> None:
        for start in range(0, count, BATCH):
            await self.broker.publish([message(new_id()) for _ in range(min(BATCH, count - start))])

    async def enqueue(self, count: int) -> None:
        for start in range(0, count, BATCH):
            await self.committer.commit([enqueue_step(new_id()) for _ in range(min(BATCH, count - start))])

    async def drain(self, count: int) -> None:
        done = 0

        async def work() -> None:
            nonlocal done
            while done < count:
                deliveries = await self.broker.receive([QUEUE], limit=BATCH, lease=30, wait=0)
                if not deliveries:
                    break
                now = datetime.now(UTC)
                answers = await self.committer.commit(
                    [finish_step(each.message.id, each.receipt, now) for each in deliveries]
                )
                assert all(answers)
                done += len(deliveries)

        await asyncio.gather(work(), work())
        assert done == count, f"{done} of {count}"

    async def lone(self, count: int) -> None:
        for _ in range(count):
            await self.broker.publish([message(new_id())])

    async def hop(self, count: int) -> float:
        """Seconds, median: from before a publish to having claimed it, in another connection's receive."""
        times = []
        for _ in range(count):
            waiting = asyncio.ensure_future(self.broker.receive(["hop"], limit=1, lease=30, wait=5))
            await asyncio.sleep(0.03)  # let it find nothing and wait, and the doorbell's interval pass
            started = time.perf_counter()
            await self.broker.publish([Message(id=new_id(), queue="hop", sealed=PAYLOAD)])
            assert await waiting
            times.append(time.perf_counter() - started)
        return statistics.median(times)


def message(id: str) -> Message:
    return Message(id=id, queue=QUEUE, sealed=PAYLOAD)


def enqueue_step(id: str) -> Step:
    queued = StatusUpdate(
        id=id, state=TaskState.QUEUED, name="noop", queue=QUEUE, enqueued_at=datetime.now(UTC), ttl=86_400
    )
    return Step(updates=(queued,), publishes=(message(id),))


def finish_step(id: str, receipt: str, now: datetime) -> Step:
    succeeded = StatusUpdate(
        id=id,
        state=TaskState.SUCCEEDED,
        payload=b"null",
        encoder="json",
        finished_at=now,
        started_at=now,
        ttl=86_400,
    )
    return Step(settlement=Settlement(receipt, Ack()), updates=(succeeded,))


async def ports(url: str, raw: Raw) -> list[Row]:
    rows = []
    async with Ports(url) as publishing:
        rows.append(Row("publish, 200 a call", await rate(COUNT, publishing.publish), raw.publish))
        await publishing.broker.purge(QUEUE)
    async with Ports(url) as working:
        rows.append(Row("enqueue with status, 200 a call", await rate(COUNT, working.enqueue), raw.enqueue))
        rows.append(Row("drain: claim, result, ack", await rate(COUNT, working.drain), raw.drain))
        rows.append(Row("lone publish", await rate(1000, working.lone), raw.insert_loop))
        hop = await working.hop(100)
        rows.append(Row("hop, p50", hop, raw.hop_p50))
    return rows


STARTED: asyncio.Queue[float] = asyncio.Queue()


async def noop() -> None:
    """What the worker runs."""


async def stamp() -> None:
    """Says when it started."""
    STARTED.put_nowait(time.perf_counter())


async def whole(url: str, raw: Raw, count: int = COUNT) -> list[Row]:
    """Producer and one worker process (this one), results stored; ``count`` tasks, fewer where one costs more."""
    stem = Stem(url, namespace=f"bench{uuid.uuid4().hex[:8]}")
    task, stamped = stem.task(noop), stem.task(stamp)
    rows = []
    async with stem:
        call = task.call()

        async def many(count: int) -> None:
            for start in range(0, count, BATCH):
                await stem.enqueue_many([call] * min(BATCH, count - start))

        rows.append(Row("enqueue_many, 200 a call", await rate(count, many), raw.enqueue))
        rows.append(Row("drain by one worker", await worked(stem, count), raw.drain))

        async def concurrent(count: int) -> None:
            await asyncio.gather(*(task.enqueue() for _ in range(count)))

        async def lone(count: int) -> None:
            for _ in range(count):
                await task.enqueue()

        rows.append(Row("concurrent enqueues", await rate(count * 5 // 12, concurrent), raw.insert_loop))
        rows.append(Row("lone enqueue", await rate(count // 12, lone), raw.insert_loop))
        await worked(stem, count * 5 // 12 + count // 12)
        worker = Worker(stem)
        working = asyncio.ensure_future(worker.run())
        times = []
        for done in range(min(100, count // 100)):
            while worker.stats.succeeded < done:  # noqa: ASYNC110 - until the last one is stored
                await asyncio.sleep(0.001)
            await asyncio.sleep(postgres_raw.REST)  # and it waits again
            started = time.perf_counter()
            await stamped.enqueue()
            times.append(await STARTED.get() - started)
        hop = statistics.median(times)
        rows.append(Row("enqueue to start, p50", hop, raw.hop_p50))
        rows.append(Row("idle, transactions a second", await statements(url, min(10.0, count / 1000)), 1.0))
        worker.stop()
        await working
    return rows


async def worked(stem: Stem, count: int) -> float:
    """Tasks a second of a fresh worker, from its start until the last result is stored."""
    worker = Worker(stem)
    started = time.perf_counter()
    working = asyncio.ensure_future(worker.run())
    while worker.stats.succeeded < count:  # noqa: ASYNC110 - a hundred looks a second cost nothing
        await asyncio.sleep(0.01)
    figure = count / (time.perf_counter() - started)
    worker.stop()
    await working
    return figure


async def statements(url: str, seconds: float) -> float:
    """Statements (each a transaction) a second of every connection of ours while nothing happens.

    Seen by when each connection's newest one began, fifty times a second: the counters of pg_stat_database also count
    autovacuum, and arrive up to ten seconds late.
    """
    async with await psycopg.AsyncConnection.connect(url.partition("?")[0], autocommit=True) as connection:

        async def newest() -> set[tuple[int, datetime]]:
            cursor = await connection.execute(
                "select pid, query_start from pg_stat_activity where application_name = 'stem'"
            )
            return {(pid, began) for pid, began in await cursor.fetchall()}

        await asyncio.sleep(min(1.0, seconds))
        known = await newest()
        seen = set(known)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            await asyncio.sleep(0.02)
            seen |= await newest()
        return len(seen - known) / seconds


async def rate(count: int, work: Callable[[int], Awaitable[Any]]) -> float:
    started = time.perf_counter()
    await work(count)
    return count / (time.perf_counter() - started)


def show(rows: list[Row]) -> None:
    """The median of each figure and of its ratio to the limit of its own round."""
    print(f"{'':<36}{'stem':>14}{'raw':>14}{'ratio':>8}")
    for name in dict.fromkeys(row.name for row in rows):
        same = [row for row in rows if row.name == name]
        figure, limit = (statistics.median(values) for values in zip(*[row[1:] for row in same], strict=True))
        ratio = statistics.median(row.figure / row.limit for row in same)
        print(f"{name:<36}{text(figure):>14}{text(limit):>14}{ratio:>8.2f}")


def text(figure: float) -> str:
    return (
        f"{figure * 1e3:.2f} ms"
        if figure < 0.5
        else f"{figure:,.1f}/s"
        if figure < 10
        else f"{figure:,.0f}/s"
    )


async def main(url: str) -> None:
    """Rounds of everything, so that a machine's mood hits the limit and us alike."""
    rows: list[Row] = []
    for _ in range(ROUNDS):
        raw = await postgres_raw.measure(url, COUNT)
        schema = f"bench{uuid.uuid4().hex[:8]}"
        there = f"{url}{'&' if '?' in url else '?'}schema={schema}"
        try:
            rows += await ports(there, raw)
            rows += await whole(there, raw)
        finally:
            async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
                await connection.execute(f'drop schema if exists "{schema}" cascade'.encode())
    show(rows)


if __name__ == "__main__":
    loop.run(main(sys.argv[1] if len(sys.argv) > 1 else os.environ["STEM_TEST_POSTGRES_URL"]))
