"""publish_connection: through the broker where it can, else into the outbox, on the caller's own connection."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from stem_core import ConfigurationError, Signature, Stem, TaskEnqueueOptions, TaskState
from stem_core.envelope import Message
from stem_core.ports.committer import Step


class Connection:
    """A caller's transaction: what was written in it."""

    def __init__(self) -> None:
        self.steps: list[Step] = []


class Transactional:
    """What the broker of these tests is given: a way to write on a :class:`Connection`."""

    def __init__(self, broker: Any, joined: bool) -> None:
        self.broker = broker
        self.where: list[int] = []
        broker.commit_on = self.commit_on
        broker.commit_on_sync = self.commit_on_sync
        if joined:
            broker.join = lambda backend: self

    async def commit_on(self, conn: Any, steps: Sequence[Step]) -> Sequence[bool]:
        self.where.append(id(asyncio.get_running_loop()))
        return self.commit_on_sync(conn, steps)

    def commit_on_sync(self, conn: Any, steps: Sequence[Step]) -> Sequence[bool]:
        if not isinstance(conn, Connection):
            raise ConfigurationError(f"{conn!r} is no connection of ours")
        conn.steps += steps
        return [True] * len(steps)


class ListOutbox:
    """An outbox that keeps what is written in a list."""

    def __init__(self) -> None:
        self.opened = 0
        self.written: list[tuple[Any, Message]] = []

    async def open(self) -> None:
        self.opened += 1

    async def close(self) -> None:
        self.opened -= 1

    async def write(self, conn: Any, messages: Sequence[Message]) -> None:
        self.written += [(conn, each) for each in messages]

    def write_sync(self, conn: Any, messages: Sequence[Message]) -> None:
        self.written += [(conn, each) for each in messages]

    async def relay(self, broker: Any, *, limit: int = 100) -> int:
        return 0


def on(connection: Any) -> Signature[Any]:
    return Signature(name="a", args=(1,), enqueue_options=TaskEnqueueOptions(publish_connection=connection))


@pytest.mark.parametrize("joined", [True, False])
async def test_message_and_row_go_with_the_transaction_where_they_are_one_store(
    lab: Any, way: Any, joined: bool
) -> None:
    here = await lab({"transactional_publish": True})
    Transactional(here.broker, joined)
    await here.stem.close()
    async with here.stem:
        connection = Connection()
        handle = await way(here.stem, on(connection))
        (step,) = connection.steps
        assert [each.id for each in step.publishes] == [handle.id]
        assert [each.state for each in step.updates] == ([TaskState.QUEUED] if joined else [])
        assert here.broker.published == []
        assert await handle.status() is None


async def test_an_async_connection_is_used_on_its_own_loop(lab: Any) -> None:
    here = await lab({"transactional_publish": True})
    spy = Transactional(here.broker, joined=False)

    async def elsewhere() -> int:
        await here.stem.enqueue_call(on(Connection()))
        return id(asyncio.get_running_loop())

    loop = await asyncio.to_thread(lambda: asyncio.run(elsewhere()))
    assert spy.where == [loop]


async def test_the_adapter_refuses_a_connection_it_does_not_know(lab: Any, way: Any) -> None:
    here = await lab({"transactional_publish": True})
    Transactional(here.broker, joined=False)
    with pytest.raises(ConfigurationError, match="no connection of ours"):
        await way(here.stem, on("dsn"))


async def test_it_is_never_coalesced_nor_part_of_many(lab: Any) -> None:
    here = await lab({"transactional_publish": True})
    Transactional(here.broker, joined=False)
    connections = [Connection() for _ in range(5)]
    await asyncio.gather(*(here.stem.enqueue_call(on(each)) for each in connections))
    assert [len(each.steps) for each in connections] == [1] * 5
    with pytest.raises(ConfigurationError, match="one by one"):
        await here.stem.enqueue_many([on(Connection())])


async def test_an_outbox_takes_it_where_the_broker_cannot(way: Any) -> None:
    outbox = ListOutbox()
    async with Stem("memory://", outbox=outbox) as stem:
        assert outbox.opened == 1
        handle = await way(stem, on("connection"))
        ((connection, message),) = outbox.written
        assert (connection, message.id) == ("connection", handle.id)
        assert await handle.status() is None
        assert (await stem.broker.stats("default")).ready == 0
    assert outbox.opened == 0


def test_what_is_no_outbox() -> None:
    with pytest.raises(ConfigurationError, match="is not a"):
        Stem("memory://", outbox=object())  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="No outbox for 'memory://'"):
        Stem("memory://", outbox="memory://")
