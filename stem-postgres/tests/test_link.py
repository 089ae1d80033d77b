"""What is started without waiting: stored in order, once, and told; whatever becomes of the connection."""

from __future__ import annotations

import asyncio
import select
from collections.abc import AsyncIterator, Callable, Sequence

import psycopg
import pytest

from stem_core.envelope import Message
from stem_core.errors import AdapterError
from stem_core.ports.committer import Starter, Step
from stem_core.ports.specs import AdapterOptions
from stem_core.status import StatusUpdate, TaskState
from stem_postgres import link
from stem_postgres.backend import PostgresBackend
from stem_postgres.broker import PostgresBroker
from stem_postgres.committer import PostgresCommitter
from stem_postgres.link import Link
from stem_postgres.location import locate
from stem_postgres.plugin import POSTGRES_BROKER

from .conftest import with_query

Outcome = Sequence[bool] | Exception
PATIENCE = 10.0


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.005)


def step(id: str, *, once: bool = False, **more: object) -> Step:
    message = Message(id=id, queue="q", sealed=b"x" * 100, once=once)
    update = StatusUpdate(id=id, state=TaskState.QUEUED, name="t", queue="q", ttl=3600.0, **more)  # type: ignore[arg-type]
    return Step(updates=(update,), publishes=(message,))


@pytest.fixture
def committer(broker: PostgresBroker, backend: PostgresBackend) -> PostgresCommitter:
    made = broker.join(backend)
    assert isinstance(made, PostgresCommitter)
    return made


@pytest.fixture
async def started(committer: PostgresCommitter, broker: PostgresBroker) -> PostgresCommitter:
    """A committer whose connection for this is there."""
    connection = broker.database.link
    assert connection is not None
    await until(connection.ready)
    return committer


@pytest.fixture
async def bare(postgres_url: str) -> AsyncIterator[Link]:
    made = Link(lambda: psycopg.AsyncConnection.connect(postgres_url, autocommit=True))
    await until(made.ready)
    yield made
    await made.close()


async def ended(start: Callable[[Callable[[Outcome], None]], bool]) -> Outcome:
    """What a start came to. It has to be taken."""
    future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    assert start(future.set_result)
    assert not future.done()
    return await asyncio.wait_for(future, PATIENCE)


async def test_a_lone_start_stores_message_and_status(
    started: PostgresCommitter, broker: PostgresBroker, backend: PostgresBackend
) -> None:
    assert isinstance(started, Starter)
    lone = step("a", meta={"k": [1, "\x00"]})
    assert await ended(lambda told: started.start([lone], 10, told)) == [True]
    [delivery] = await broker.receive(["q"], limit=5, lease=30, wait=0)
    assert delivery.message == lone.publishes[0]
    [status] = await backend.fetch(["a"])
    assert status is not None
    assert (status.state, status.name, status.meta) == (TaskState.QUEUED, "t", {"k": [1, "\x00"]})


async def test_what_is_started_keeps_its_order(started: PostgresCommitter, broker: PostgresBroker) -> None:
    told: list[Outcome] = []
    batches = [[step("a")], [step("b"), step("c")], [step("d")]]
    for batch in batches:
        assert started.start(batch, 10, told.append)
    await until(lambda: len(told) == 3)
    assert told == [[True], [True, True], [True]]
    deliveries = await broker.receive(["q"], limit=5, lease=30, wait=0)
    assert [each.message.id for each in deliveries] == ["a", "b", "c", "d"]


@pytest.mark.parametrize("once", [False, True])
async def test_an_id_that_is_known_is_merged_not_added(
    started: PostgresCommitter, broker: PostgresBroker, backend: PostgresBackend, once: bool
) -> None:
    for meta in ({"a": 1}, {"b": 2}):
        again = step("same", once=once, meta=meta)
        assert await ended(lambda told, again=again: started.start([again], 10, told)) == [True]  # type: ignore[misc]
    assert len(await broker.receive(["q"], limit=5, lease=30, wait=0)) == 1
    [status] = await backend.fetch(["same"])
    assert status is not None
    assert status.meta == {"a": 1, "b": 2}


async def test_a_message_whose_status_is_gone_is_known_all_the_same(
    started: PostgresCommitter, broker: PostgresBroker, backend: PostgresBackend, postgres_url: str
) -> None:
    assert await started.commit([step("kept")]) == [True]
    table = f'"{broker.database.location.schema}".status'
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"delete from {table} where id = 'kept'".encode())
    assert await ended(lambda told: started.start([step("kept")], 10, told)) == [True]
    assert len(await broker.receive(["q"], limit=5, lease=30, wait=0)) == 1
    [status] = await backend.fetch(["kept"])
    assert status is not None


async def test_steps_of_another_kind_are_left_to_commit(started: PostgresCommitter) -> None:
    def refused(*steps: Step) -> bool:
        return not started.start(steps, 10, lambda _: None)

    later = StatusUpdate(id="a", state=TaskState.RUNNING)
    too_large = Message(id="b", queue="q", sealed=b"x" * 100_000_000)
    assert refused(step("a"), step("a"))
    assert refused(Step(updates=(later,), publishes=step("a").publishes))
    assert refused(Step(publishes=step("a").publishes))
    assert refused(Step(updates=step("b").updates, publishes=(too_large,)))
    assert refused(Step(updates=step("c").updates, publishes=(Message(id="c", queue="nul\x00", sealed=b""),)))


@pytest.mark.parametrize("option", ["pgbouncer", "pool"])
async def test_where_connections_are_not_ours_there_is_none(
    module_url: str, options: AdapterOptions, option: str
) -> None:
    made = PostgresBroker(with_query(module_url, **{option: "1"}), options, POSTGRES_BROKER.capabilities)
    assert made.database.link is None


async def test_a_cut_in_the_middle_is_an_error_and_a_new_connection(
    started: PostgresCommitter, broker: PostgresBroker, postgres_url: str
) -> None:
    future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    schema = locate(broker.database.location.url).schema
    async with (
        await psycopg.AsyncConnection.connect(postgres_url) as locking,
        await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as cutting,
    ):
        await locking.execute(f'lock table "{schema}".status'.encode())
        assert started.start([step("cut")], 10, future.set_result)
        async with asyncio.timeout(PATIENCE):
            while True:
                cursor = await cutting.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity "
                    "where wait_event_type = 'Lock' and query like %s",
                    [f"%{schema}%"],
                )
                if await cursor.fetchall():
                    break
        assert isinstance(await asyncio.wait_for(future, PATIENCE), AdapterError)
    connection = broker.database.link
    assert connection is not None
    await until(connection.ready)
    assert await ended(lambda told: started.start([step("cut")], 10, told)) == [True]


async def test_a_cut_while_idle_is_noticed_before_anything_is_sent(bare: Link, postgres_url: str) -> None:
    told: list[int | psycopg.Error] = []
    assert bare.begin(b"select 1 as cut_while_idle", [], 10, told.append)
    await until(lambda: told)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where query = 'select 1 as cut_while_idle'"
        )
    gone = select.poll()  # on this thread: the loop cannot look meanwhile
    gone.register(bare._socket, select.POLLRDHUP)
    assert gone.poll(PATIENCE * 1000)
    assert not bare.ready()
    await until(bare.ready)
    assert bare.begin(b"select 1", [], 10, told.append)
    await until(lambda: len(told) == 2)
    assert told == [1, 1]


async def test_what_takes_too_long_fails(bare: Link) -> None:
    told: list[int | psycopg.Error] = []
    assert bare.begin(b"select pg_sleep(60)", [], 0.05, told.append)
    await until(lambda: told)
    assert isinstance(told[0], psycopg.OperationalError)
    assert "0.05 s" in str(told[0])
    await until(bare.ready)


async def test_a_statement_that_fails_leaves_its_neighbours_alone(bare: Link) -> None:
    told: list[int | psycopg.Error] = []
    for text in (b"select 1 where false", b"select 1 / 0", b"values (1), (2)"):
        assert bare.begin(text, [], 10, told.append)
    await until(lambda: len(told) == 3)
    assert told[::2] == [0, 2]
    assert isinstance(told[1], psycopg.errors.DivisionByZero)
    assert not bare.begin(b"select 1", [], 10, told.append)  # on a new connection only
    await until(bare.ready)
    assert bare.begin(b"select 1", [], 10, told.append)
    await until(lambda: len(told) == 4)
    assert told[3] == 1


async def test_there_is_a_limit_to_what_is_under_way(bare: Link) -> None:
    told: list[int | psycopg.Error] = []
    begun = 0
    while bare.ready():
        assert bare.begin(b"select pg_sleep(0.01)", [], 10, told.append)
        begun += 1
    assert begun == 4
    await until(lambda: len(told) == begun)
    assert bare.ready()


async def test_what_the_network_cannot_take_at_once_is_written_on(bare: Link) -> None:
    told: list[int | psycopg.Error] = []
    for _ in range(3):
        assert bare.begin(b"select 1 where length($1::bytea) = 8000000", [b"x" * 8_000_000], 30, told.append)
    await until(lambda: len(told) == 3)
    assert told == [1, 1, 1]


async def test_it_is_there_for_who_asks_often_and_gone_when_nobody_does(
    broker: PostgresBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = broker.database.link
    assert connection is not None
    assert not connection.ready()
    assert connection._connecting is None
    monkeypatch.setattr(link, "_IDLE_SECONDS", 0.05)
    await until(connection.ready)
    await until(lambda: connection._connection is None)


async def test_close_fails_what_is_under_way(bare: Link) -> None:
    told: list[int | psycopg.Error] = []
    assert bare.begin(b"select pg_sleep(60)", [], 60, told.append)
    await bare.close()
    assert isinstance(told[0], psycopg.OperationalError)
    await bare.close()
