"""The outbox at its port: what commits is relayed once, whatever is interrupted when."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator

import psycopg
import pytest

from stem_core.cli import main
from stem_core.envelope import Message
from stem_core.errors import ConfigurationError, StemError
from stem_core.plugins import discover
from stem_core.ports import Broker
from stem_core.ports.specs import AdapterOptions
from stem_postgres.outbox import PostgresOutbox
from stem_postgres.plugin import POSTGRES_OUTBOX
from tests.servers import ValkeyServer


@pytest.fixture
async def outbox(module_url: str, options: AdapterOptions) -> AsyncIterator[PostgresOutbox]:
    made = POSTGRES_OUTBOX.open(module_url, options)
    assert isinstance(made, PostgresOutbox)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def target(options: AdapterOptions) -> AsyncIterator[Broker]:
    made = discover().broker("memory://").open("memory://", options)
    await made.open()
    yield made
    await made.close()


def test_stem_plugins_lists_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["outboxes"]["postgresql"]["name"] == "postgres"


def message(id: str, sealed: bytes = b"sealed") -> Message:
    return Message(id=id, queue="q", sealed=sealed, priority=0)


async def arrived(broker: Broker) -> list[str]:
    return [each.message.id for each in await broker.receive(["q"], limit=100_000, lease=60, wait=0)]


async def write(url: str, outbox: PostgresOutbox, *messages: Message, commit: bool = True) -> None:
    async with await psycopg.AsyncConnection.connect(url) as conn:
        await outbox.write(conn, messages)
        if not commit:
            await conn.rollback()


async def test_what_commits_is_relayed_in_order_and_what_rolls_back_is_not(
    outbox: PostgresOutbox, target: Broker, postgres_url: str
) -> None:
    await write(postgres_url, outbox, message("a"), message("b"))
    await write(postgres_url, outbox, message("lost"), commit=False)
    with psycopg.connect(postgres_url) as conn:
        outbox.write_sync(conn, [message("c")])
        assert await outbox.relay(target, limit=2) == 2  # c is not committed yet
    assert await outbox.relay(target, limit=100) == 1
    assert await outbox.relay(target, limit=100) == 0
    assert await arrived(target) == ["a", "b", "c"]


async def test_a_message_arrives_as_it_was_written(outbox: PostgresOutbox, postgres_url: str) -> None:
    class Keeps:
        def __init__(self) -> None:
            self.got: list[Message] = []

        async def publish(self, messages: list[Message]) -> list[bool]:
            self.got += messages
            return [True] * len(messages)

    given = Message(
        id="x", queue="q", sealed=bytes(range(256)), priority=7, delay=1.5, route={"exchange": "e"}
    )
    await write(postgres_url, outbox, given)
    keeps = Keeps()
    await outbox.relay(keeps)  # type: ignore[arg-type]
    [got] = keeps.got
    assert got.once
    assert (got.id, got.sealed, got.priority, got.delay, got.route) == (
        "x",
        given.sealed,
        7,
        1.5,
        given.route,
    )


async def test_a_relay_that_dies_after_its_publish_publishes_nothing_twice(
    outbox: PostgresOutbox, target: Broker, postgres_url: str
) -> None:
    class Dies:
        async def publish(self, messages: list[Message]) -> list[bool]:
            await target.publish(messages)
            raise asyncio.CancelledError

    await write(postgres_url, outbox, message("a"))
    with pytest.raises(asyncio.CancelledError):
        await outbox.relay(Dies())  # type: ignore[arg-type]
    assert await outbox.relay(target) == 1
    assert await arrived(target) == ["a"]


async def test_one_the_broker_can_never_take_stops_no_other(
    outbox: PostgresOutbox, target: Broker, postgres_url: str, module_url: str
) -> None:
    bad = Message(id="bad", queue="q", sealed=b"", priority=99)
    await write(postgres_url, outbox, message("a"), bad, message("b"))
    assert await outbox.relay(target) == 3
    assert await outbox.relay(target) == 0
    assert await arrived(target) == ["a", "b"]


async def test_relays_share_the_work(outbox: PostgresOutbox, target: Broker, postgres_url: str) -> None:
    await write(postgres_url, outbox, *(message(f"m{n}") for n in range(500)))
    counts = await asyncio.gather(*(relay_all(outbox, target, 20) for _ in range(4)))
    assert sum(counts) == 500
    assert sorted(await arrived(target)) == sorted(f"m{n}" for n in range(500))


async def relay_all(outbox: PostgresOutbox, target: Broker, limit: int) -> int:
    total = 0
    while count := await outbox.relay(target, limit=limit):
        total += count
    return total


async def test_an_autocommit_connection_is_refused(outbox: PostgresOutbox, postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as conn, pytest.raises(ConfigurationError):
        outbox.write_sync(conn, [message("a")])


@pytest.mark.parametrize("transactions", [200, pytest.param(5000, marks=pytest.mark.long)])
async def test_to_redis_with_relay_and_redis_killed_again_and_again(
    outbox: PostgresOutbox, postgres_url: str, options: AdapterOptions, transactions: int
) -> None:
    """Messages that arrive are the committed transactions exactly, each once."""
    chance = random.Random(11)
    with ValkeyServer(appendfsync="always") as server:
        target = discover().broker(server.url).open(server.url, options)
        await target.open()
        committed: set[str] = set()
        written = asyncio.Event()

        async def relay() -> None:
            while True:
                try:
                    if not await outbox.relay(target, limit=20):
                        if written.is_set():
                            return
                        await asyncio.sleep(0.01)
                except StemError:
                    await asyncio.sleep(0.05)

        async def break_things() -> None:
            for _ in range(max(3, transactions // 250)):
                await asyncio.sleep(0.3)
                relays[0].cancel()  # killed wherever it was
                relays[0] = asyncio.create_task(relay())
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.start)

        relays = [asyncio.create_task(relay()) for _ in range(2)]
        breaking = asyncio.create_task(break_things())
        for n in range(transactions):
            keep = chance.random() > 0.3
            await write(postgres_url, outbox, message(f"m{n}"), commit=keep)
            if keep:
                committed.add(f"m{n}")
        written.set()
        await breaking
        async with asyncio.timeout(60):
            await asyncio.gather(*relays)
        found = await arrived(target)
        assert sorted(found) == sorted(committed)
        await target.close()
