"""What psycopg and batched SQL can do on this machine: the same bytes, nothing of ours.

``python -m benchmarks.limits.postgres_raw [URL]`` prints a table; :func:`measure` gives it to the benchmark that
compares. A message is 36 characters of id and 300 bytes of payload; a task's row holds name, queue and time, then
result and its encoder. Each table has its key and, for messages, the one index a claim needs: what a careful
person would write by hand for exactly this. Batches of 200, fsync as the server has it.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import psycopg

BATCH = 200
#: Seconds of rest before a hop, here and for Stem alike: who waits for work has not just worked. A hop in a hot loop
#: takes half as long, which says nothing of one that comes to an idle machine.
REST = 0.005
PAYLOAD = os.urandom(300)

TABLES = """
drop schema if exists raw cascade;
create schema raw;
create table raw.message (
    seq bigint generated always as identity primary key, queue text not null, id text not null,
    leased boolean not null default false, token bigint not null default 0, lease_until timestamptz,
    sealed bytea not null) with (fillfactor = 50);
create unique index on raw.message (id);
create index on raw.message (queue, seq);
create table raw.status (
    id text primary key, state text not null, name text not null, queue text not null, enqueued_at timestamptz not null,
    result bytea, encoder text, finished_at timestamptz) with (fillfactor = 60);
"""
INSERT = """insert into raw.message (queue, id, sealed)
select 'default', id, sealed from unnest(%s::text[], %s::bytea[]) as m (id, sealed) on conflict do nothing"""
INSERT_WITH_ROW = f"""with row as (
    insert into raw.status (id, state, name, queue, enqueued_at)
    select id, 'queued', 'noop', 'default', now() from unnest(%s::text[]) as t (id) on conflict do nothing)
{INSERT}"""
CLAIM = """with pick as materialized (
    select seq from raw.message where queue = 'default' and (not leased or lease_until < now())
    order by seq limit %s for update skip locked)
update raw.message m set leased = true, token = token + 1, lease_until = now() + interval '30 s'
where seq = any (array(select seq from pick)) returning seq, token, id, sealed"""
COMPLETE = """with gone as (
    delete from raw.message m using unnest(%s::bigint[], %s::bigint[]) as r (seq, token)
    where m.seq = r.seq and m.token = r.token returning m.id)
insert into raw.status as s (id, state, name, queue, enqueued_at, result, encoder, finished_at)
select id, 'succeeded', 'noop', 'default', now(), %s, 'json', now() from gone order by id
on conflict (id) do update
set state = excluded.state, result = excluded.result, encoder = excluded.encoder, finished_at = excluded.finished_at"""


@dataclass(frozen=True)
class Raw:
    """Messages per second, and seconds for a hop."""

    publish: float
    enqueue: float
    drain: float
    insert_loop: float
    hop_p50: float


async def measure(url: str, count: int = 40_000) -> Raw:
    """Every figure once, in a schema that is removed again."""
    async with await connect(url) as connection:
        try:
            await connection.execute(TABLES)
            ids = [f"0199{n:032d}" for n in range(count)]
            publish = await rate(count, lambda: produce(connection, INSERT, ids, columns=2))
            await connection.execute("truncate raw.message")
            enqueue = await rate(count, lambda: produce(connection, INSERT_WITH_ROW, ids, columns=3))
            await connection.execute("analyze raw.message, raw.status")
            drained = await rate(count, lambda: drain(url, count))
            singles = max(1, count // 40)
            loop = await rate(singles, lambda: insert_loop(connection, singles))
            await connection.execute("truncate raw.message")
            hops = await hop(url, 300)
            return Raw(publish, enqueue, drained, loop, hops)
        finally:
            await connection.execute("drop schema if exists raw cascade")


async def connect(url: str) -> psycopg.AsyncConnection[Any]:
    connection = await psycopg.AsyncConnection.connect(url, autocommit=True)
    connection.prepare_threshold = 2
    return connection


async def rate(count: int, work: Callable[[], Awaitable[None]]) -> float:
    started = time.perf_counter()
    await work()
    return count / (time.perf_counter() - started)


async def produce(
    connection: psycopg.AsyncConnection[Any], statement: str, ids: list[str], columns: int
) -> None:
    for start in range(0, len(ids), BATCH):
        batch = ids[start : start + BATCH]
        parameters: list[Any] = [batch] * (columns - 1)
        await connection.execute(statement, [*parameters, [PAYLOAD] * len(batch)])


async def drain(url: str, count: int, connections: int = 2) -> None:
    """Claim and complete until nothing is left, on as many connections as a worker would keep busy."""
    done = 0

    async def work() -> None:
        nonlocal done
        async with await connect(url) as connection:
            while done < count:
                cursor = connection.cursor(binary=True)
                await cursor.execute(CLAIM, [BATCH])
                rows = await cursor.fetchall()
                if not rows:
                    break
                await cursor.execute(COMPLETE, [[row[0] for row in rows], [row[1] for row in rows], b"null"])
                done += len(rows)

    await asyncio.gather(*(work() for _ in range(connections)))
    assert done == count, f"{done} of {count}"


async def insert_loop(connection: psycopg.AsyncConnection[Any], count: int) -> None:
    """What an application does today: one row, one commit."""
    for n in range(count):
        await connection.execute(
            "insert into raw.message (queue, id, sealed) values ('single', %s, %s)", [f"single{n}", PAYLOAD]
        )


async def hop(url: str, count: int) -> float:
    """Seconds, median: from before an insert and its NOTIFY, after a rest, to having claimed it elsewhere."""
    claimed: asyncio.Queue[float] = asyncio.Queue()

    async def listen(ready: asyncio.Event) -> None:
        async with await connect(url) as listener, await connect(url) as claimer:
            await listener.execute("listen raw_bell")
            ready.set()
            async for _ in listener.notifies():
                cursor = claimer.cursor(binary=True)
                await cursor.execute(CLAIM, [1])
                if await cursor.fetchall():
                    claimed.put_nowait(time.perf_counter())

    ready = asyncio.Event()
    task = asyncio.create_task(listen(ready))
    await ready.wait()
    times = []
    async with await connect(url) as connection:
        for n in range(count):
            await asyncio.sleep(REST)
            started = time.perf_counter()
            await connection.execute(INSERT, [[f"hop{n}"], [PAYLOAD]])
            await connection.execute("notify raw_bell")
            times.append(await claimed.get() - started)
    task.cancel()
    return statistics.median(times)


def table(raw: Raw) -> str:
    rows = [
        ("insert, 200 a statement", f"{raw.publish:,.0f}/s"),
        ("insert with a status row", f"{raw.enqueue:,.0f}/s"),
        ("claim and complete with result", f"{raw.drain:,.0f}/s"),
        ("one INSERT + COMMIT at a time", f"{raw.insert_loop:,.0f}/s"),
        ("NOTIFY hop and claim, p50", f"{raw.hop_p50 * 1000:.2f} ms"),
    ]
    return "\n".join(f"{name:<32}{figure:>12}" for name, figure in rows)


if __name__ == "__main__":
    target = sys.argv[1] if len(sys.argv) > 1 else os.environ["STEM_TEST_POSTGRES_URL"]
    print(table(asyncio.run(measure(target))))
