"""Transactional enqueue at the ports: the caller's commit publishes, and nothing else does (law 19)."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest
import sqlalchemy
from psycopg.rows import dict_row
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session

from stem_core.envelope import Message
from stem_core.errors import ConfigurationError, PayloadTooLarge
from stem_core.ports.committer import Step
from stem_core.status import StatusUpdate, TaskState
from stem_postgres.backend import PostgresBackend
from stem_postgres.broker import PostgresBroker


def step(id: str, queue: str = "q") -> Step:
    return Step(
        updates=(StatusUpdate(id=id, state=TaskState.QUEUED),),
        publishes=(Message(id=id, queue=queue, sealed=id.encode(), once=True),),
    )


async def ids(broker: PostgresBroker) -> set[str]:
    return {each.message.id for each in await broker.receive(["q"], limit=10_000, lease=30, wait=0)}


@pytest.fixture
async def async_conn(postgres_url: str) -> AsyncIterator[psycopg.AsyncConnection]:
    async with await psycopg.AsyncConnection.connect(postgres_url) as connection:
        yield connection


@pytest.fixture
def engine(postgres_url: str) -> Iterator[sqlalchemy.Engine]:
    made = sqlalchemy.create_engine(postgres_url.replace("postgresql://", "postgresql+psycopg://"))
    yield made
    made.dispose()


async def test_async_commit_publishes_and_rollback_leaves_nothing(
    broker: PostgresBroker, backend: PostgresBackend, async_conn: psycopg.AsyncConnection
) -> None:
    assert await broker.commit_on(async_conn, [step("kept")]) == [True]
    assert await ids(broker) == set()
    assert await backend.fetch(["kept"]) == [None]
    await async_conn.commit()
    assert await ids(broker) == {"kept"}
    [status] = await backend.fetch(["kept"])
    assert status is not None
    await broker.commit_on(async_conn, [step("lost")])
    await async_conn.rollback()
    assert await ids(broker) == set()
    assert await backend.fetch(["lost"]) == [None]


async def test_the_idle_receiver_finds_what_a_transaction_brought(
    broker: PostgresBroker, async_conn: psycopg.AsyncConnection
) -> None:
    await broker.commit_on(async_conn, [step("a")])
    await async_conn.commit()
    found = await broker.receive(["q"], limit=1, lease=30, wait=10)
    assert [each.message.id for each in found] == ["a"]


async def test_sync_commit_and_rollback(broker: PostgresBroker, postgres_url: str) -> None:
    with psycopg.connect(postgres_url, row_factory=dict_row, cursor_factory=psycopg.ClientCursor) as conn:
        assert broker.commit_on_sync(conn, [step("lost")]) == [True]
        conn.rollback()
        assert broker.commit_on_sync(conn, [step("kept")]) == [True]
        conn.commit()
    assert await ids(broker) == {"kept"}


async def test_sqlalchemy_connection_session_and_raw_connection(
    broker: PostgresBroker, engine: sqlalchemy.Engine
) -> None:
    with engine.begin() as conn:
        broker.commit_on_sync(conn, [step("begun")])
    with engine.connect() as conn:  # begins by itself, ends by commit
        broker.commit_on_sync(conn, [step("connected")])
        conn.commit()
    with engine.connect() as conn:
        broker.commit_on_sync(conn, [step("lost")])
    with Session(engine) as session:
        broker.commit_on_sync(session, [step("session")])
        session.commit()
    with Session(engine) as session:
        broker.commit_on_sync(session, [step("lost too")])
        session.rollback()
    raw = engine.raw_connection()
    broker.commit_on_sync(raw, [step("raw")])
    raw.commit()
    broker.commit_on_sync(raw, [step("lost as well")])
    raw.rollback()
    raw.close()
    assert await ids(broker) == {"begun", "connected", "session", "raw"}


async def test_sqlalchemy_async_connection(broker: PostgresBroker, postgres_url: str) -> None:
    engine = create_async_engine(postgres_url.replace("postgresql://", "postgresql+psycopg://"))
    async with engine.begin() as conn:
        await broker.commit_on(conn, [step("begun")])
    async with engine.connect() as conn:
        await broker.commit_on(conn, [step("lost")])
    async with engine.connect() as conn:
        await broker.commit_on(conn, [step("connected")])
        await conn.commit()
    await engine.dispose()
    assert await ids(broker) == {"begun", "connected"}


async def test_a_savepoint_rolled_back_takes_its_publish_with_it(
    broker: PostgresBroker, postgres_url: str
) -> None:
    with psycopg.connect(postgres_url) as conn:
        broker.commit_on_sync(conn, [step("outer")])
        with conn.transaction(force_rollback=True):
            broker.commit_on_sync(conn, [step("inner")])
        conn.commit()
    assert await ids(broker) == {"outer"}


async def test_autocommit_without_a_transaction_is_refused(broker: PostgresBroker, postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as conn:
        with pytest.raises(ConfigurationError, match="autocommit"):
            broker.commit_on_sync(conn, [step("a")])
        with conn.transaction():
            broker.commit_on_sync(conn, [step("b")])
    assert await ids(broker) == {"b"}


async def test_the_wrong_colour_or_kind_of_connection_is_refused(
    broker: PostgresBroker, async_conn: psycopg.AsyncConnection, postgres_url: str
) -> None:
    with psycopg.connect(postgres_url) as conn, pytest.raises(ConfigurationError, match="enqueue_sync"):
        await broker.commit_on(conn, [step("a")])
    with pytest.raises(ConfigurationError, match="await enqueue"):
        broker.commit_on_sync(async_conn, [step("a")])
    with pytest.raises(ConfigurationError, match=r"builtins\.str"):
        broker.commit_on_sync("postgresql://", [step("a")])
    with pytest.raises(ConfigurationError, match=r"builtins\.int"):
        await broker.commit_on(5, [step("a")])


async def test_what_cannot_be_stored_leaves_the_transaction_usable(
    broker: PostgresBroker, async_conn: psycopg.AsyncConnection
) -> None:
    large = Message(id="big", queue="q", sealed=b"x" * (broker.capabilities.max_size or 0) + b"x")
    with pytest.raises(PayloadTooLarge):
        await broker.commit_on(async_conn, [Step(publishes=(large,))])
    await broker.commit_on(async_conn, [step("a")])
    await async_conn.commit()
    assert await ids(broker) == {"a"}


@pytest.mark.parametrize("transactions", [300, pytest.param(5000, marks=pytest.mark.long)])
async def test_tasks_are_the_committed_transactions_exactly(
    broker: PostgresBroker, postgres_url: str, engine: sqlalchemy.Engine, unique_name: str, transactions: int
) -> None:
    """Three kinds of connection; three in ten roll back, some clients die before, some after, their commit."""
    chance = random.Random(5)
    table = f"orders_{unique_name}"
    with psycopg.connect(postgres_url, autocommit=True) as conn:
        conn.execute(f"create table {table} (id text primary key)".encode())
    insert = f"insert into {table} values ('%s')"
    try:
        for n in range(transactions):
            id = f"order{n}"
            fate = chance.choices(["commit", "rollback", "die"], [6, 3, 1])[0]
            kind = n % 3
            if kind == 0:
                aconn = await psycopg.AsyncConnection.connect(postgres_url)
                await aconn.execute((insert % id).encode())
                await broker.commit_on(aconn, [step(id)])
                if fate == "die":
                    aconn.pgconn.finish()  # the socket closes, as when the process is killed
                    continue
                await (aconn.commit() if fate == "commit" else aconn.rollback())
                await aconn.close()
            elif kind == 1:
                conn = psycopg.connect(postgres_url)
                conn.execute((insert % id).encode())
                broker.commit_on_sync(conn, [step(id)])
                if fate == "die":
                    conn.pgconn.finish()
                    continue
                (conn.commit if fate == "commit" else conn.rollback)()
                conn.close()
            else:
                raw = engine.raw_connection()
                raw.cursor().execute(insert % id)
                broker.commit_on_sync(raw, [step(id)])
                if fate == "die":
                    driver = raw.driver_connection
                    assert driver is not None
                    raw.detach()
                    driver.pgconn.finish()
                    continue
                (raw.commit if fate == "commit" else raw.rollback)()
                raw.close()
        with psycopg.connect(postgres_url) as conn:
            orders = {row[0] for row in conn.execute(f"select id from {table}".encode())}
        assert 0 < len(orders) < transactions
        assert await ids(broker) == orders
    finally:
        with psycopg.connect(postgres_url, autocommit=True) as conn:
            conn.execute(f"drop table {table}".encode())
