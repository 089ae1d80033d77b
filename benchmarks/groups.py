"""What ``make bench`` measures: a generator of rounds for each group, each with its limit measured around it.

The aims are those the project set itself. Every round measures the limit, ours, and (where it is cheap) the limit
again, so that a machine's mood hits both; a figure is the median over the rounds.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import Final

from benchmarks import loop, sqlite, worker
from benchmarks.figures import COUNT, MICROSECONDS, MILLISECONDS, RATE, Round

__all__ = ["imports", "memory", "postgres", "redis", "signing", "sqlite_file"]

_IMPORT = "import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"


def imports(*, quick: bool) -> Iterator[Round]:
    """Seconds to import, in fresh interpreters, ``asyncio`` and ``stem_core`` in turns."""
    for module in ("asyncio", "stem_core"):
        _import_seconds(module)  # the first one may still have to compile it
    for _ in range(3 if quick else 15):
        limit, ours = _import_seconds("asyncio"), _import_seconds("stem_core")
        yield Round(
            "import stem_core, to import asyncio", ours, limit, unit=MILLISECONDS, aim=3.0, at_most=True
        )


def _import_seconds(module: str) -> float:
    return float(subprocess.check_output([sys.executable, "-c", _IMPORT.format(module=module)]))


def memory(*, quick: bool) -> Iterator[Round]:
    """A worker on ``memory://`` beside ``asyncio.create_task`` of the same no-ops."""
    count = 2_000 if quick else 20_000
    for _ in range(2 if quick else 7):
        before = asyncio.run(worker.create_task(count))
        ours = asyncio.run(worker.drain(count, concurrency=100))
        after = asyncio.run(worker.create_task(count))
        yield Round("drain, to asyncio.create_task", ours, (before + after) / 2, aim=0.12)


def sqlite_file(*, quick: bool) -> Iterator[Round]:
    """``sqlite://`` beside batched SQL."""
    for _ in range(1 if quick else 5):
        yield from sqlite.measure(1_000 if quick else 20_000)


def signing(*, quick: bool) -> Iterator[Round]:
    """Sealing and opening with a signature beside ``hmac.digest``, and signed queues beside an unsigned one.

    In processor time; that script interleaves its own rounds and answers the best of each.
    """
    command = [sys.executable, "-m", "benchmarks.signing", "--json", *(["--quick"] if quick else [])]
    for _ in range(1 if quick else 3):
        # Its exit status says whether its aims are met, which is judged here.
        answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout
        rows = {row["what"]: row for row in json.loads(answer)}
        alone, unsigned = rows["hmac.digest alone"], rows["drain, unsigned"]
        for name, row in rows.items():
            if row not in (alone, unsigned) and not name.endswith("unsigned"):
                limit = (unsigned if name.startswith("drain") else alone)["per_second"]
                yield Round(name, row["per_second"], limit, aim=row["aim"])


def redis(url: str, *, quick: bool) -> Iterator[Round]:
    """Redis or Valkey beside redis-py and batched Lua."""
    for number in range(1 if quick else 3):
        yield from loop.run(_redis(url, 2_000 if quick else 20_000, quick=quick, last=not number))


async def _redis(url: str, count: int, *, quick: bool, last: bool) -> list[Round]:
    from benchmarks import redis as bench
    from benchmarks.limits import redis_raw

    namespace = f"bench{uuid.uuid4().hex[:8]}"
    before = await redis_raw.measure(url, count)
    rates = await bench.produce(url, namespace, count)
    await bench.forget(url, namespace)
    one, cpu_of_one = await bench.drain(url, 1, count)
    two, cpu_of_two = await bench.drain(url, 2, count)
    hop = await bench.start_latency(url, 30 if quick else 300)
    after = await redis_raw.measure(url, count)

    def limit(name: str) -> float:
        mean: float = statistics.mean((getattr(before, name), getattr(after, name)))
        return mean

    rounds = [
        Round("enqueue_many, 1,000 a call", rates["enqueue_many"], limit("enqueue"), aim=0.5),
        Round("concurrent enqueues, to an XADD loop", rates["concurrent"], limit("xadd_loop"), aim=5.0),
        Round("lone enqueue, to an XADD loop", rates["lone"], limit("xadd_loop"), aim=0.6),
        Round("drain, one worker process", one, limit("drain"), aim=0.35),
        Round("drain, two worker processes", two, limit("drain")),
        Round("CPU per task, two to one", cpu_of_two, cpu_of_one, unit=MICROSECONDS, aim=1.15, at_most=True),
        Round("enqueue to start, p50", hop, limit("hop_p50"), unit=MICROSECONDS, aim=2.5, at_most=True),
    ]
    if last:  # once is enough: it is a count, not a speed
        idle = await bench.idle(url, 1 if quick else 10)
        rounds.append(Round("idle worker, commands", idle, None, unit=COUNT, aim=2.0, at_most=True))
    return rounds


#: Figures of ``benchmarks.postgres``: what they are called here, their limit, the aim.
_POSTGRES: Final[dict[str, tuple[str, str | None, float]]] = {
    "enqueue_many, 200 a call": ("enqueue_many, 200 a call", "enqueue", 0.6),
    "concurrent enqueues": ("concurrent enqueues, to INSERT loop", "insert_loop", 4.0),
    "lone enqueue": ("lone enqueue, to INSERT loop", "insert_loop", 0.7),
    "drain by one worker": ("drain, one worker process", "drain", 0.4),
    "enqueue to start, p50": ("enqueue to start, p50", "hop_p50", 2.0),
    "idle, transactions a second": ("idle worker, statements", None, 1.0),
}


def postgres(url: str, *, quick: bool) -> Iterator[Round]:
    """PostgreSQL beside psycopg and batched SQL."""

    async def rounds() -> list[Round]:  # all on one loop, which that benchmark's queue belongs to
        return [each for _ in range(1 if quick else 3) for each in await _postgres(url, quick=quick)]

    yield from loop.run(rounds())


async def _postgres(url: str, *, quick: bool) -> list[Round]:
    import psycopg

    from benchmarks import postgres as bench
    from benchmarks.limits import postgres_raw

    count = 600 if quick else bench.COUNT
    schema = f"bench{uuid.uuid4().hex[:8]}"
    before = await postgres_raw.measure(url, count)
    try:
        rows = await bench.whole(f"{url}{'&' if '?' in url else '?'}schema={schema}", before, count)
    finally:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            await connection.execute(f'drop schema if exists "{schema}" cascade'.encode())
    after = await postgres_raw.measure(url, count)
    rounds = []
    for row in rows:
        name, field, aim = _POSTGRES[row.name]
        limit = statistics.mean((getattr(before, field), getattr(after, field))) if field else None
        unit = RATE if field and field != "hop_p50" else COUNT if field is None else MILLISECONDS
        rounds.append(Round(name, row.figure, limit, unit=unit, aim=aim, at_most=unit != RATE))
    return rounds
