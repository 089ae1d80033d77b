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
from typing import Any, Self

import psycopg

from benchmarks.limits import postgres_raw
from benchmarks.limits.postgres_raw import BATCH, PAYLOAD, Raw
from stem_core.envelope import Ack, Message, Settlement, new_id
from stem_core.ports.committer import Step
from stem_core.ports.specs import AdapterOptions
from stem_core.status import StatusUpdate, TaskState
from stem_postgres.plugin import POSTGRES_BACKEND, POSTGRES_BROKER

COUNT = 40_000
QUEUE = "default"


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
        id=id, state=TaskState.SUCCEEDED, payload=b"null", encoder="json", finished_at=now, started_at=now, ttl=86_400
    )
    return Step(settlement=Settlement(receipt, Ack()), updates=(succeeded,))


async def ports(url: str, raw: Raw) -> list[tuple[str, str, str, str]]:
    rows = []
    async with Ports(url) as publishing:
        rows.append(per_second("publish, 200 a call", await rate(COUNT, publishing.publish), raw.publish))
        await publishing.broker.purge(QUEUE)
    async with Ports(url) as working:
        rows.append(per_second("enqueue with status, 200 a call", await rate(COUNT, working.enqueue), raw.enqueue))
        rows.append(per_second("drain: claim, result, ack", await rate(COUNT, working.drain), raw.drain))
        rows.append(per_second("lone publish", await rate(1000, working.lone), raw.insert_loop))
        hop = await working.hop(100)
        rows.append(("hop, p50", f"{hop * 1e3:.2f} ms", f"{raw.hop_p50 * 1e3:.2f} ms", f"{hop / raw.hop_p50:.2f}"))
    return rows


async def rate(count: int, work: Callable[[int], Awaitable[Any]]) -> float:
    started = time.perf_counter()
    await work(count)
    return count / (time.perf_counter() - started)


def per_second(name: str, figure: float, limit: float) -> tuple[str, str, str, str]:
    return name, f"{figure:,.0f}/s", f"{limit:,.0f}/s", f"{figure / limit:.2f}"


def show(title: str, rows: list[tuple[str, str, str, str]]) -> None:
    print(f"\n{title:<36}{'stem':>14}{'raw':>14}{'ratio':>8}")
    for name, figure, limit, ratio in rows:
        print(f"{name:<36}{figure:>14}{limit:>14}{ratio:>8}")


async def main(url: str) -> None:
    raw = await postgres_raw.measure(url, COUNT)
    schema = f"bench{uuid.uuid4().hex[:8]}"
    there = f"{url}{'&' if '?' in url else '?'}schema={schema}"
    try:
        show("the adapter alone", await ports(there, raw))
    finally:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            await connection.execute(f'drop schema if exists "{schema}" cascade'.encode())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else os.environ["STEM_TEST_POSTGRES_URL"]))
