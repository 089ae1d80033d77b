"""What redis-py and batched Lua can do on this machine: the same bytes, nothing of ours.

``python -m benchmarks.limits.redis_raw [URL]`` prints a table; :func:`measure` gives it to the benchmark that
compares. A message is 32 bytes of id and 300 of payload; a task's row holds what Stem's holds: order, name,
queue, time, then result and its encoder.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import redis.asyncio
from redis.exceptions import ResponseError

BATCH = 200
PAYLOAD = os.urandom(300)
STREAM, GROUP = "{raw}:stream", "g"

ENQUEUE = """
for n = 1, #ARGV, 2 do
  redis.call('XADD', KEYS[1], '*', 'i', ARGV[n], 'e', ARGV[n + 1])
end
"""
ENQUEUE_WITH_ROW = """
for n = 1, #ARGV, 2 do
  local key = '{raw}:t:' .. ARGV[n]
  redis.call('HSET', key, 'o', '00000000000000000000000queued', 'n', 'noop', 'q', 'default', 't', '1700000000000000')
  redis.call('PEXPIRE', key, 600000)
  redis.call('XADD', KEYS[1], '*', 'i', ARGV[n], 'e', ARGV[n + 1])
end
"""
CLAIM = """
local found = redis.call('XREADGROUP', 'GROUP', 'g', 'w', 'COUNT', ARGV[1], 'STREAMS', KEYS[1], '>')
return found and found[1][2] or {}
"""
FINISH = """
local done = {}
for n = 1, #ARGV, 3 do
  local key = '{raw}:t:' .. ARGV[n + 1]
  done[#done + 1] = ARGV[n]
  redis.call('HSET', key, 'o', '000000000000000000000031succeeded', 'p', ARGV[n + 2], 'c', 'json', 'f', '1700000000000000')
  redis.call('PEXPIRE', key, 600000)
end
redis.call('XACK', KEYS[1], 'g', unpack(done))
redis.call('XDEL', KEYS[1], unpack(done))
"""


@dataclass(frozen=True)
class Raw:
    """Messages per second, and seconds for a hop."""

    publish: float
    enqueue: float
    drain: float
    xadd_loop: float
    hop_p50: float


async def measure(url: str, count: int = 40_000) -> Raw:
    """Every figure once, on keys that are removed again."""
    client = redis.asyncio.Redis.from_url(url)
    await _clear(client)
    try:
        ids = [b"0199%028d" % n for n in range(count)]
        publish = await _rate(count, lambda: _produce(client, ENQUEUE, ids))
        await _clear(client)
        enqueue = await _rate(count, lambda: _produce(client, ENQUEUE_WITH_ROW, ids))
        drain = await _rate(count, lambda: _drain(client, count))
        singles = max(1, count // 20)
        loop = await _rate(singles, lambda: _xadd_loop(client, singles))
        await client.delete(STREAM)
        hop = await _hop(client, url, 300)
        return Raw(publish, enqueue, drain, loop, hop)
    finally:
        await _clear(client)
        await client.aclose()


async def _rate(count: int, work: Callable[[], Awaitable[None]]) -> float:
    start = time.perf_counter()
    await work()
    return count / (time.perf_counter() - start)


async def _produce(client: redis.asyncio.Redis, text: str, ids: list[bytes]) -> None:
    script = client.register_script(text)
    for first in range(0, len(ids), BATCH):
        args: list[bytes] = []
        for id in ids[first : first + BATCH]:
            args += (id, PAYLOAD)
        await script(keys=[STREAM], args=args)


async def _drain(client: redis.asyncio.Redis, count: int) -> None:
    await _make_group(client, "0")
    claim, finish = client.register_script(CLAIM), client.register_script(FINISH)
    done = 0
    while done < count:
        entries = await claim(keys=[STREAM], args=[BATCH])
        args: list[bytes] = []
        for entry, fields in entries:
            args += (entry, fields[1], b"null")
        await finish(keys=[STREAM], args=args)
        done += len(entries)


async def _xadd_loop(client: redis.asyncio.Redis, count: int) -> None:
    for n in range(count):
        await client.xadd(STREAM, {"i": b"0199%028d" % n, "e": PAYLOAD})


async def _hop(client: redis.asyncio.Redis, url: str, count: int) -> float:
    """From just before an XADD to the return of another connection's blocking read: the median."""
    await _make_group(client, "$")
    reader = redis.asyncio.Redis.from_url(url)
    hops = []
    try:
        for _ in range(count):
            waiting = asyncio.ensure_future(reader.xreadgroup(GROUP, "w", {STREAM: ">"}, count=1, block=5000))
            await asyncio.sleep(0.002)  # let it block
            start = time.perf_counter()
            await client.xadd(STREAM, {"i": b"x", "e": PAYLOAD})
            await waiting
            hops.append(time.perf_counter() - start)
    finally:
        await reader.aclose()
    return statistics.median(hops)


async def _make_group(client: redis.asyncio.Redis, start: str) -> None:
    try:
        await client.xgroup_create(STREAM, GROUP, start, mkstream=True)
    except ResponseError as error:
        if "BUSYGROUP" not in str(error):
            raise


async def _clear(client: redis.asyncio.Redis) -> None:
    keys = [key async for key in client.scan_iter("{raw}:*", count=1000)]
    for first in range(0, len(keys), 1000):
        await client.unlink(*keys[first : first + 1000])


def main() -> None:
    url = (
        sys.argv[1]
        if len(sys.argv) > 1
        else os.environ.get("STEM_TEST_REDIS_URL", "redis://localhost:6379/0")
    )
    raw = asyncio.run(measure(url))
    print(f"publish, batches of {BATCH} in Lua         {raw.publish:10,.0f}/s")
    print(f"the same with a task's row            {raw.enqueue:10,.0f}/s")
    print(f"drain: claim, store result, ack       {raw.drain:10,.0f}/s")
    print(f"XADD, one after the other             {raw.xadd_loop:10,.0f}/s")
    print(f"XADD to a blocked reader, p50         {raw.hop_p50 * 1e6:10,.0f} us")


if __name__ == "__main__":
    main()
