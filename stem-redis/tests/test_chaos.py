"""Everything at once: random faults under load, then the account is settled."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from stem_redis.broker import RedisBroker
from tests.servers import ValkeyServer

from .load import QUEUES, Load
from .proxy import Proxy


@pytest.mark.parametrize(
    ("seconds", "seed"),
    [pytest.param(20, 1), *(pytest.param(120, seed, marks=pytest.mark.long) for seed in range(2, 5))],
)
@pytest.mark.timeout(400)
async def test_chaos_loses_nothing(adapters, seconds: float, seed: int) -> None:
    """Kills, cuts, half-open and slow links, lost answers, killed clients and flushed scripts."""
    dice = random.Random(seed)
    with ValkeyServer(appendfsync="always") as server:
        async with Proxy(server.url) as proxy:
            admin = await adapters.broker(server.url)
            async with Load(adapters, f"{proxy.url}?timeout=1", producers=3, consumers=5, seed=seed) as load:
                end = time.monotonic() + seconds
                while time.monotonic() < end:
                    await asyncio.sleep(dice.uniform(0.1, 0.5))
                    await one_fault(dice, server, proxy, admin)
                    await load.progress(20)  # whatever broke, work goes on
                await load.drain()
        assert load.lost() == set()
        assert load.errors > 0
        await account(load, await adapters.broker(server.url))


async def one_fault(dice: random.Random, server: ValkeyServer, proxy: Proxy, admin: RedisBroker) -> None:
    kinds = ("kill", "cut", "swallow", "slow", "lost", "clients", "scripts")
    match dice.choices(kinds, (1, 3, 1, 1, 3, 2, 2))[0]:
        case "kill":
            server.kill()
            await asyncio.sleep(dice.uniform(0, 0.3))
            server.start()
        case "cut":
            proxy.cut()
        case "swallow":
            proxy.swallow = True
            await asyncio.sleep(dice.uniform(0, 1.5))
            proxy.swallow = False
            proxy.cut()
        case "slow":
            proxy.delay = dice.uniform(0, 0.1)
            await asyncio.sleep(0.3)
            proxy.delay = 0.0
        case "lost":
            left = iter([True] * dice.randrange(1, 4))
            proxy.cut_replies = lambda: next(left, False)
        case "clients":
            await admin.server.command("CLIENT", "KILL", "TYPE", "normal")
        case "scripts":
            await admin.server.command("SCRIPT", "FLUSH")


async def account(load: Load, broker: RedisBroker) -> None:
    """Law 11, and that no message was acked by two workers that were both told so."""
    counts = [await broker.counts(queue) for queue in QUEUES]
    published = sum(each["published"] for each in counts)
    assert len(load.published) <= published <= len(load.published | load.unknown)
    assert load.started
    assert load.unknown
    assert load.refused & load.run == set()
    assert [each["acked"] for each in counts] == [each["published"] for each in counts]
    assert load.settled_twice == set()
    assert load.acked <= load.run
