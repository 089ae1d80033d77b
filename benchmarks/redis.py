"""Stem on Redis beside what redis-py and batched Lua can do, in one run: ``python -m benchmarks.redis [URL]``.

Without a URL it starts the Valkey of the tests. Every figure is a ratio to the raw loop of
``benchmarks/limits/redis_raw.py``, measured just before and just after, on the same server, with the same number of
tasks: no-op async tasks whose results are stored.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from typing import Any

import redis.asyncio

from benchmarks import loop
from benchmarks.limits import redis_raw
from stem_core import Stem, Worker
from tests.servers import ValkeyServer

QUEUE = "bench"
PAYLOAD = "x" * 100
#: What reaches the server as a request of its own; the rest of commandstats ran inside scripts.
REQUESTS = ("evalsha", "eval", "blpop", "ping", "subscribe", "unsubscribe", "zrevrange", "xrange")


def make_stem(url: str, namespace: str) -> tuple[Stem, Any]:
    stem = Stem(url, namespace=namespace)

    @stem.task(name="noop", queue=QUEUE)
    async def noop(text: str) -> None:
        del text

    return stem, noop


async def produce(url: str, namespace: str, count: int) -> dict[str, float]:
    """Tasks per second of each way to enqueue."""
    stem, noop = make_stem(url, namespace)
    rates = {}
    async with stem:
        await noop.enqueue(PAYLOAD)
        start = time.perf_counter()
        for _ in range(0, count, 1000):
            await stem.enqueue_many([noop.call(PAYLOAD) for _ in range(1000)])
        rates["enqueue_many"] = count / (time.perf_counter() - start)
        few = count // 4
        start = time.perf_counter()
        for _ in range(0, few, 1000):
            await asyncio.gather(*(noop.enqueue(PAYLOAD) for _ in range(1000)))
        rates["concurrent"] = few / (time.perf_counter() - start)
        lone = count // 20
        start = time.perf_counter()
        for _ in range(lone):
            await noop.enqueue(PAYLOAD)
        rates["lone"] = lone / (time.perf_counter() - start)
    return rates


async def drain_here(url: str, namespace: str) -> None:
    """One worker process: says when it is ready, waits for a line, empties the queue, reports."""
    stem, _ = make_stem(url, namespace)
    async with stem:
        worker = Worker(stem, queues=[QUEUE], concurrency=400)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        start, cpu = time.perf_counter(), time.process_time()
        await worker.run(until_empty=True)
        took, used = time.perf_counter() - start, time.process_time() - cpu
    print(json.dumps({"seconds": took, "cpu": used}), flush=True)


async def drain(url: str, processes: int, count: int) -> tuple[float, float]:
    """Tasks per second and CPU seconds per task, of ``processes`` workers on ``count`` tasks."""
    namespace = f"bench{uuid.uuid4().hex[:8]}"
    stem, noop = make_stem(url, namespace)
    async with stem:
        for _ in range(0, count, 1000):
            await stem.enqueue_many([noop.call(PAYLOAD) for _ in range(1000)])
    command = [sys.executable, "-m", "benchmarks.redis", url, "--drain", namespace]
    reports = await asyncio.to_thread(work_off, command, processes)
    seconds = max(report["seconds"] for report in reports)
    await forget(url, namespace)
    return count / seconds, sum(report["cpu"] for report in reports) / count


def work_off(command: list[str], processes: int) -> list[dict[str, float]]:
    """Start worker processes, let all begin at once, and gather what they report."""
    workers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    for worker in workers:
        assert worker.stdout
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin
        worker.stdin.write("go\n")
        worker.stdin.flush()
    return [json.loads(worker.communicate()[0]) for worker in workers]


async def idle(url: str, seconds: float) -> float:
    """Requests per second of a worker with nothing to do."""
    namespace = f"bench{uuid.uuid4().hex[:8]}"
    client = redis.asyncio.Redis.from_url(url)
    stem, _ = make_stem(url, namespace)
    async with stem, Worker(stem, queues=[QUEUE]):
        await asyncio.sleep(2)
        before = await requests(client)
        await asyncio.sleep(seconds)
        made = await requests(client) - before
    await client.aclose()
    await forget(url, namespace)
    return made / seconds


async def requests(client: redis.asyncio.Redis) -> int:
    stats = await client.info("commandstats")
    return sum(int(stats.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in REQUESTS)


async def start_latency(url: str, count: int) -> float:
    """From just before enqueue to the first line of the handler: the median, in seconds."""
    namespace = f"bench{uuid.uuid4().hex[:8]}"
    stem = Stem(url, namespace=namespace)
    started: asyncio.Queue[float] = asyncio.Queue()

    @stem.task(name="stamp", queue=QUEUE)
    async def stamp() -> None:
        started.put_nowait(time.perf_counter())

    hops = []
    async with stem, Worker(stem, queues=[QUEUE]):
        for _ in range(count):
            await asyncio.sleep(0.005)  # let it block again
            start = time.perf_counter()
            await stamp.enqueue()
            hops.append(await started.get() - start)
    await forget(url, namespace)
    return statistics.median(hops)


async def forget(url: str, namespace: str) -> None:
    """Remove what a benchmark left."""
    client = redis.asyncio.Redis.from_url(url)
    for pattern in (f"stem:{namespace}:*", f"stem:{{{namespace}:*"):
        keys = [key async for key in client.scan_iter(pattern, count=5000)]
        for first in range(0, len(keys), 1000):
            await client.unlink(*keys[first : first + 1000])
    await client.aclose()


async def compare(url: str, count: int) -> None:
    before = await redis_raw.measure(url, count)
    namespace = f"bench{uuid.uuid4().hex[:8]}"
    rates = await produce(url, namespace, count)
    await forget(url, namespace)
    one, cpu_of_one = await drain(url, 1, count)
    two, cpu_of_two = await drain(url, 2, count)
    after = await redis_raw.measure(url, count)
    hop = await start_latency(url, 300)
    quiet = await idle(url, 10)

    def raw(name: str) -> float:
        return float(statistics.mean((getattr(before, name), getattr(after, name))))

    print(f"{'':34}{'Stem':>12}{'raw':>12}{'ratio':>8}   goal")
    row("enqueue_many, /s", rates["enqueue_many"], raw("enqueue"), ">= 0.5")
    row("concurrent enqueues, /s", rates["concurrent"], raw("xadd_loop"), ">= 5")
    row("lone sequential enqueue, /s", rates["lone"], raw("xadd_loop"), ">= 0.6")
    row("drain, one process, /s", one, raw("drain"), ">= 0.35")
    row("drain, two processes, /s", two, raw("drain"), "")
    row("CPU per task, two to one, us", cpu_of_two * 1e6, cpu_of_one * 1e6, "<= 1.15")
    row("enqueue to start, p50, us", hop * 1e6, raw("hop_p50") * 1e6, "<= 2.5")
    print(f"{'idle worker, requests/s':34}{quiet:12.2f}{'':20}   <= 2")


def row(name: str, ours: float, theirs: float, goal: str) -> None:
    print(f"{name:34}{ours:12,.0f}{theirs:12,.0f}{ours / theirs:8.2f}   {goal}")


@contextlib.contextmanager
def server(url: str | None) -> Iterator[str]:
    if url:
        yield url
        return
    with ValkeyServer() as started:
        yield started.url


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?", default=os.environ.get("STEM_TEST_REDIS_URL"))
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--drain", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    with server(arguments.url) as url:
        if arguments.drain:
            loop.run(drain_here(url, arguments.drain))
        else:
            loop.run(compare(url, arguments.count))


if __name__ == "__main__":
    main()
