"""Servers that vanish, connections that are cut, snapshots that stay: nothing confirmed is lost, everyone is back."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time

import psycopg
import pytest

from stem_core.envelope import Ack, Action, Message, Release, Retry, Settlement
from stem_core.errors import AdapterError, PublishError, StemError
from stem_core.ports.committer import Step
from stem_core.status import StatusUpdate, TaskState
from stem_postgres.broker import PostgresBroker
from tests.servers import PostgresServer

from .load import Load, opened

BACK_SECONDS = 10.0


@pytest.mark.parametrize("crashes", [1, pytest.param(5, marks=pytest.mark.long)])
async def test_an_immediate_stop_loses_nothing_confirmed(
    own_server: PostgresServer, unique_name: str, crashes: int
) -> None:
    async with opened(own_server.url, unique_name) as (broker, backend):
        load = Load(broker, backend)
        load.start()
        await load.progress(200, 30)
        for _ in range(crashes):
            await asyncio.to_thread(own_server.kill)
            await asyncio.to_thread(own_server.start)
            back = time.monotonic()
            await load.progress(50, 3 * BACK_SECONDS)
            assert time.monotonic() - back < BACK_SECONDS
        await load.finish()
        assert load.errors  # the fault was felt
        assert load.confirmed <= load.seen
        assert not load.refused & load.seen
        statuses = await backend.fetch(sorted(load.done))
        assert all(status is not None and status.terminal for status in statuses)


async def test_listening_comes_back_with_a_claim_at_once(
    own_server: PostgresServer, unique_name: str
) -> None:
    async with opened(own_server.url, unique_name) as (broker, _):
        await broker.receive(["q"], limit=1, lease=30, wait=0.5)
        assert broker.listening
        own_server.kill()
        await until(lambda: not broker.listening)
        own_server.start()
        await until(lambda: broker.listening, BACK_SECONDS)

        async def patient() -> int:
            while True:
                with contextlib.suppress(AdapterError):
                    return len(await broker.receive(["q"], limit=1, lease=30, wait=30))

        waiting = asyncio.create_task(patient())
        with psycopg.connect(own_server.url, autocommit=True) as connection:  # nobody rings for this one
            connection.execute(
                "insert into stem.message (namespace, queue, id, priority, due, once, sealed) "
                "values (%s, 'q', 'a', 0, now(), false, '')",
                [unique_name],
            )
        assert await asyncio.wait_for(waiting, BACK_SECONDS) == 1


@pytest.mark.parametrize("kind", ["pool", "listen", "wait", "all"])
async def test_cut_connections_are_replaced(
    module_url: str, postgres_url: str, unique_name: str, kind: str
) -> None:
    application = f"cut {unique_name}"
    async with opened(f"{module_url}&application_name={application.replace(' ', '%20')}", unique_name) as (
        broker,
        backend,
    ):
        waiting = asyncio.create_task(waited(backend, "awaited"))
        load = Load(broker, backend)
        load.start()
        await load.progress(100, 30)
        which = {
            "pool": "query not ilike 'listen%%'",
            "listen": "query ilike 'listen \"stem_q%%'",
            "wait": "query ilike 'listen \"stem_s%%'",
            "all": "true",
        }[kind]
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            cut = 0
            for _ in range(3):
                rows = connection.execute(
                    f"select pg_terminate_backend(pid) from pg_stat_activity where application_name = %s and {which}".encode(),
                    [application],
                ).fetchall()
                cut += len(rows)
                await load.progress(50, BACK_SECONDS)
        assert cut
        await until(lambda: broker.listening, BACK_SECONDS)
        await load.finish()
        assert load.confirmed <= load.seen
        assert not load.refused & load.seen
        await backend.record([StatusUpdate(id="awaited", state=TaskState.SUCCEEDED)])
        assert await asyncio.wait_for(waiting, BACK_SECONDS)


async def test_a_pinned_snapshot_slows_but_stops_nothing(
    module_url: str, postgres_url: str, unique_name: str
) -> None:
    async with opened(module_url, unique_name) as (broker, backend):
        with psycopg.connect(postgres_url) as pinned:
            pinned.execute("set transaction isolation level repeatable read")
            pinned.execute("select 1")
            load = Load(broker, backend)
            load.start()
            await load.progress(2000, 60)
            await load.finish()
        assert load.confirmed == load.done
        assert not load.errors


async def test_eight_workers_on_the_same_rows_do_not_deadlock(module_url: str, unique_name: str) -> None:
    """Steps over the same statuses and ids in random orders: every wait is in one order, or is tried again."""
    ids = [f"shared{n}" for n in range(20)]
    async with opened(module_url, unique_name) as (broker, backend):
        committer = broker.join(backend)
        assert committer is not None

        async def work(seed: int) -> None:
            chance = random.Random(seed)
            for turn in range(6):
                chosen = chance.sample(ids, 8)
                steps = [
                    Step(
                        updates=(
                            StatusUpdate(id=id, state=TaskState.RUNNING, attempt=turn),
                            StatusUpdate(id=chance.choice(ids), state=TaskState.QUEUED),
                        ),
                        publishes=(Message(id=chance.choice(ids), queue="q", sealed=b"", once=True),),
                    )
                    for id in chosen
                ]
                assert all(await committer.commit(steps))
                await broker.publish([Message(id=id, queue="q", sealed=b"", once=True) for id in chosen])
                held = await broker.receive(["q"], limit=5, lease=30, wait=0)
                choices: list[Action] = [Ack(), Retry(0.0), Release(0.0)]
                actions = [chance.choice(choices) for _ in held]
                answers = await broker.settle(
                    [Settlement(each.receipt, action) for each, action in zip(held, actions, strict=True)]
                )
                assert all(answers)

        await asyncio.gather(*(work(seed) for seed in range(8)))


async def test_a_failing_statement_says_so_and_spoils_nothing(broker: PostgresBroker) -> None:
    with pytest.raises(PublishError) as caught:
        await broker.publish([Message(id="nul\0", queue="q", sealed=b"")])
    assert caught.value.outcome == "refused"
    assert await broker.publish([Message(id="fine", queue="q", sealed=b"")]) == [True]
    assert (await broker.stats("q")).ready == 1


async def test_an_unreachable_server_is_an_error_without_its_password(unique_name: str) -> None:
    with pytest.raises(AdapterError) as caught:
        async with opened("postgresql://stem:geheim@127.0.0.1:9/none", unique_name):
            pass
    assert "geheim" not in str(caught.value)


async def until(condition: object, timeout: float = 10.0) -> None:
    assert callable(condition)
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.01)


async def waited(backend: object, id: str) -> bool:
    while True:
        try:
            if await backend.wait(id, 60):  # type: ignore[attr-defined]
                return True
        except StemError:
            await asyncio.sleep(0.05)


async def test_dead_idle_connections_do_not_use_up_the_next_callers_time(
    own_server: PostgresServer, unique_name: str
) -> None:
    """A restart leaves as many dead connections as the pool was large: looking them over must not take its timeout."""
    async with opened(own_server.url, unique_name) as (broker, _):
        database = broker.database
        await asyncio.gather(*(database.run("select pg_sleep(0.2)") for _ in range(8)))
        own_server.kill()
        own_server.start()
        assert await database.run("select 1") == [(1,)]


@pytest.mark.parametrize("work", ["statement", "transaction"])
async def test_cancelled_callers_leave_their_places_in_the_pool(
    module_url: str, unique_name: str, work: str
) -> None:
    """Whenever a caller is cancelled (asked for a connection, mid-statement, giving it back), the next ones get all."""
    async with opened(f"{module_url}&pool=2", unique_name) as (broker, _):
        database = broker.database

        async def statement() -> None:
            await database.run("select 1")

        async def transaction() -> None:
            async with database.transaction() as connection:
                await connection.execute("select 1")

        chosen = statement if work == "statement" else transaction
        for turns in range(40):
            callers = [asyncio.create_task(chosen()) for _ in range(3)]
            for _ in range(turns):
                await asyncio.sleep(0)
            for caller in callers:
                caller.cancel()
            await asyncio.gather(*callers, return_exceptions=True)
        async with (
            asyncio.timeout(BACK_SECONDS),
            database.transaction() as one,
            database.transaction() as other,
        ):
            assert one is not other


async def test_the_next_caller_gets_the_connection_used_last(module_url: str, unique_name: str) -> None:
    async with opened(module_url, unique_name) as (broker, _):
        database = broker.database
        await asyncio.gather(*(database.run("select pg_sleep(0.05)") for _ in range(4)))
        seen = {(await database.run("select pg_backend_pid()"))[0] for _ in range(8)}
        assert len(seen) <= 2  # two where the pool wanted to see it in between


async def test_no_cancellation_is_dropped(module_url: str, unique_name: str) -> None:
    """Not even one that comes while the connection that was waited for arrives."""
    async with opened(f"{module_url}&pool=1", unique_name) as (broker, _):
        database = broker.database
        for turns in range(30):
            async with database.transaction():
                waiting = asyncio.create_task(database.run("select 1"))
                await asyncio.sleep(0.001)
            for _ in range(turns):
                await asyncio.sleep(0)
            cancelled = waiting.cancel()  # False when it was over already
            await asyncio.wait({waiting})
            assert waiting.cancelled() == cancelled
