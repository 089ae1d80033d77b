"""Everything at once: crashes of the server, cut connections and pinned snapshots under load, then the account."""

from __future__ import annotations

import asyncio
import random
import time

import psycopg
import pytest

from tests.servers import PostgresServer

from .load import Load, opened


@pytest.mark.parametrize(
    ("seconds", "seed"),
    [pytest.param(20, 1), *(pytest.param(120, seed, marks=pytest.mark.long) for seed in (2, 3))],
)
@pytest.mark.timeout(400)
async def test_chaos_loses_nothing_confirmed(
    own_server: PostgresServer, unique_name: str, seconds: float, seed: int
) -> None:
    dice = random.Random(seed)
    async with opened(own_server.url, unique_name) as (broker, backend), Load(broker, backend) as load:
        load.start(producers=3, consumers=4)
        await load.progress(100, 30)
        end = time.monotonic() + seconds
        faults = 0
        while time.monotonic() < end:
            await asyncio.sleep(dice.uniform(0.1, 0.8))
            if dice.random() < 0.15:
                await asyncio.to_thread(own_server.kill)
                await asyncio.to_thread(own_server.start)
            else:
                await asyncio.to_thread(cut_some, own_server.url, dice)
            faults += 1
        await load.progress(50, 20)  # everyone is back
        await load.finish()
        assert faults > 5
        assert load.errors
        assert load.started > 10 * seconds
        assert load.confirmed <= load.seen
        assert not load.refused & load.seen
        statuses = await backend.fetch(sorted(load.done))
        assert all(status is not None and status.terminal for status in statuses)
        stats = await broker.stats("load")
        assert (stats.ready, stats.scheduled, stats.leased, stats.dead) == (0, 0, 0, 0)


def cut_some(url: str, dice: random.Random) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute(
            "select pid from pg_stat_activity where application_name = 'stem'"
        ).fetchall()
        for row in found:
            if dice.random() < 0.5:
                connection.execute("select pg_terminate_backend(%s)", row)
