"""What is started without waiting, several at a time on one connection: order, and the truth of each fate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from stem_core import PublishError, Stem
from stem_core.envelope import Ack, Message, Settlement
from stem_core.errors import AdapterError
from stem_core.ports.committer import Step
from stem_core.status import StatusUpdate, TaskState
from stem_redis.batches import MOST_BYTES, MOST_STEPS
from stem_redis.broker import RedisBroker
from stem_redis.committer import RedisCommitter
from tests.servers import ValkeyServer

from .proxy import Proxy

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
Told = Sequence[bool] | Exception


def new_work(id: str, *, size: int = 50, **fields: Any) -> Step:
    message = Message(**{"id": id, "queue": "q", "sealed": b"\xff" * size, **fields})
    queued = StatusUpdate(id=id, state=TaskState.QUEUED, name="t", queue="q", enqueued_at=AT, ttl=60.0)
    return Step(updates=(queued,), publishes=(message,))


class Starts:
    """A committer, what was started through it, and what was told of each."""

    def __init__(self, broker: RedisBroker, committer: RedisCommitter) -> None:
        self.broker = broker
        self.committer = committer
        self.told: dict[str, list[Told]] = {}

    def start(self, *ids: str, timeout: float = 10.0, **fields: Any) -> bool:
        """One batch of these ids, known by the first."""
        told = self.told.setdefault(ids[0], [])
        begun = self.committer.start([new_work(id, **fields) for id in ids], timeout, told.append)
        assert not told
        if not begun:
            del self.told[ids[0]]
        return begun

    async def ends(self) -> dict[str, Told]:
        """What was told of each batch, once of each."""
        async with asyncio.timeout(20):
            while not all(self.told.values()):
                await asyncio.sleep(0.001)
        assert [len(each) for each in self.told.values()] == [1] * len(self.told)
        return {id: told for id, (told,) in self.told.items()}

    async def usual(self) -> None:
        """Do what the first enqueue of an hour does, so that what follows is usual."""
        assert await self.committer.commit([new_work("first")]) == [True]

    async def stored(self) -> list[str]:
        """The ids in the queue, in order."""
        found: list[str] = []
        while got := await self.broker.receive(["q"], limit=10_000, lease=60, wait=0):
            found += [each.message.id for each in got]
        return found


async def starts_at(adapters: Any, url: str | None = None, **options: Any) -> Starts:
    broker, backend = await adapters.broker(url, **options), await adapters.backend(url, **options)
    committer = broker.join(backend)
    assert isinstance(committer, RedisCommitter)
    return Starts(broker, committer)


@pytest.fixture
async def starts(adapters: Any) -> Starts:
    return await starts_at(adapters)


@pytest.fixture
async def own_server() -> AsyncIterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


async def test_several_are_under_way_at_once_and_keep_their_order(starts: Starts) -> None:
    await starts.usual()
    assert all(starts.start(f"{n}", f"{n}b") for n in range(50))
    assert not any(starts.told.values())
    assert await starts.ends() == {f"{n}": [True, True] for n in range(50)}
    assert await starts.stored() == ["first", *(f"{n}{b}" for n in range(50) for b in ("", "b"))]


async def test_what_is_not_usual_is_done_in_its_turn(starts: Starts) -> None:
    """The first of an hour have no index yet: the script writes nothing, and each is done another way, in order."""
    assert all(starts.start(f"{n}") for n in range(5))
    while not starts.committer._mending:
        await asyncio.sleep(0)
    assert not starts.start("later")  # it would overtake
    assert await starts.ends() == {f"{n}": [True] for n in range(5)}
    assert await starts.stored() == [f"{n}" for n in range(5)]
    assert starts.start("after")
    assert await starts.ends()


@pytest.mark.parametrize(
    "fields",
    [
        {"once": True},
        {"delay": 9.0},
        {"not_before": AT},
        {"priority": 10},
        {"route": {"a": "b"}},
        {"size": MOST_BYTES},
    ],
    ids=lambda fields: next(iter(fields)),
)
async def test_what_wants_another_way_is_declined(starts: Starts, fields: dict[str, Any]) -> None:
    await starts.usual()
    assert starts.start("usual")
    assert not starts.start("odd", **fields)
    await starts.ends()
    assert await starts.stored() == ["first", "usual"]


async def test_steps_that_are_no_new_work_are_declined(starts: Starts) -> None:
    await starts.usual()
    (delivery,) = await starts.broker.receive(["q"], limit=1, lease=60, wait=0)
    ack = Step(settlement=Settlement(delivery.receipt, Ack()))
    twice = [new_work("same"), new_work("same")]
    many = [new_work(f"{n}") for n in range(MOST_STEPS + 1)]
    for steps in ([], [ack], [new_work("a"), ack], twice, many):
        assert not starts.committer.start(steps, 10.0, lambda told: pytest.fail(f"told {told}"))
    assert await starts.stored() == []
    assert (await starts.broker.stats("q")).leased == 1


async def test_nothing_is_started_before_open_or_after_close(adapters: Any, starts: Starts) -> None:
    await starts.usual()
    await starts.broker.close()
    assert not starts.start("late")
    assert await (await starts_at(adapters)).stored() == ["first"]


async def test_those_under_way_at_a_close_are_told(starts: Starts) -> None:
    await starts.usual()
    assert starts.start("a")
    await starts.broker.close()
    (told,) = (await starts.ends()).values()
    assert isinstance(told, AdapterError)


async def test_a_lost_answer_leaves_the_fate_of_all_that_follow_unknown(adapters: Any) -> None:
    async with Proxy(adapters.url) as proxy:
        starts = await starts_at(adapters, proxy.url)
        await starts.usual()
        lost = iter([True])
        proxy.cut_replies = lambda: next(lost, False)
        assert all(starts.start(f"{n}") for n in range(10))
        ends = await starts.ends()
        # Some may have been answered in the same breath; none is told that it was refused, and none is sent again.
        assert all(told == [True] or "lost the connection" in str(told) for told in ends.values())
        assert any(isinstance(told, AdapterError) for told in ends.values())
        assert not starts.start("no connection at hand")
        assert await starts.committer.commit([new_work("after")]) == [True]
        assert starts.start("and after")
        assert (await starts.ends())["and after"] == [True]
        stored = await starts.stored()
        assert len(stored) == len(set(stored))
        assert {id for id, told in ends.items() if told == [True]} <= set(stored)


@pytest.mark.parametrize("timeout", [0.2, 30.0], ids=["its-own", "the-adapters"])
async def test_a_server_that_does_not_answer_in_time(
    adapters: Any, own_server: ValkeyServer, timeout: float
) -> None:
    starts = await starts_at(adapters, f"{own_server.url}?timeout={0.2 if timeout > 1 else 30}")
    await starts.usual()
    own_server.pause()
    try:
        assert all(starts.start(f"{n}", timeout=timeout) for n in range(3))
        ends = await starts.ends()
    finally:
        own_server.resume()
    assert all("did not answer within 0.2 s" in str(told) for told in ends.values())
    await starts.committer.commit([new_work("after")])
    stored = await starts.stored()
    assert stored.count("after") == 1
    assert len(stored) == len(set(stored))


async def test_a_server_that_falls_behind_is_sent_no_more(adapters: Any, own_server: ValkeyServer) -> None:
    starts = await starts_at(adapters, own_server.url)
    await starts.usual()
    own_server.pause()
    begun = 0
    try:
        while starts.start(f"{begun}", size=50_000):
            begun += 1
            await asyncio.sleep(0)
            assert begun < 10_000
    finally:
        own_server.resume()
    assert begun > 10
    assert await starts.ends() == {f"{n}": [True] for n in range(begun)}
    assert await starts.stored() == ["first", *(f"{n}" for n in range(begun))]


async def test_flushed_scripts_are_sent_again_in_order_and_nothing_twice(
    adapters: Any, own_server: ValkeyServer
) -> None:
    starts, admin = await starts_at(adapters, own_server.url), await adapters.broker(own_server.url)
    await starts.usual()
    sent = ["first"]
    for n in range(10):
        flush = asyncio.ensure_future(admin.server.command("SCRIPT", "FLUSH"))
        for m in range(6):
            id = f"{n}-{m}"
            sent.append(id)
            if not starts.start(id):
                await starts.ends()
                assert await starts.committer.commit([new_work(id)]) == [True]
            if m % 2:
                await asyncio.sleep(0)
        await flush
        assert all(told == [True] for told in (await starts.ends()).values())
    assert await starts.stored() == sent
    assert b"cmdstat_eval:" in await admin.server.command("INFO", "commandstats")  # it did come to that


async def test_a_read_only_server_refuses_each(adapters: Any, own_server: ValkeyServer) -> None:
    starts, admin = await starts_at(adapters, own_server.url), await adapters.broker(own_server.url)
    await starts.usual()
    await admin.server.command("REPLICAOF", "127.0.0.1", "1")
    assert all(starts.start(f"{n}") for n in range(3))
    for told in (await starts.ends()).values():
        assert isinstance(told, PublishError)
        assert told.outcome == "refused"
        assert isinstance(told.__cause__, AdapterError)
        assert "read-only replica: connect to the primary" in str(told)
    await admin.server.command("REPLICAOF", "NO", "ONE")
    assert starts.start("after")
    assert (await starts.ends())["after"] == [True]
    assert await starts.stored() == ["first", "after"]


async def test_a_full_server_refuses_whole_batches_and_stores_the_others(adapters: Any) -> None:
    with ValkeyServer(maxmemory="12mb", maxmemory_policy="noeviction") as server:
        starts = await starts_at(adapters, server.url)
        await starts.usual()
        for first in range(0, 3000, 10):  # 30 MB
            while not starts.start(*(f"{first + n}" for n in range(10)), size=10_000):
                await asyncio.sleep(0.001)
        ends = await starts.ends()
        for told in ends.values():
            assert told == [True] * 10 or (isinstance(told, PublishError) and told.outcome == "refused")
            assert told == [True] * 10 or "maxmemory: raise it, or drain" in str(told)
        assert any(isinstance(told, PublishError) for told in ends.values())
        kept = [id for id, told in ends.items() if told == [True] * 10]
        stored = await starts.stored()
        assert len(stored) == 1 + 10 * len(kept)
        assert set(kept) <= set(stored)


async def test_a_killed_connection_is_told_and_another_is_used(
    adapters: Any, own_server: ValkeyServer
) -> None:
    starts, admin = await starts_at(adapters, own_server.url), await adapters.broker(own_server.url)
    await starts.usual()
    sure: set[str] = set()
    for n in range(20):
        kill = asyncio.ensure_future(
            admin.server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        )
        begun = [id for id in (f"{n}-{m}" for m in range(5)) if starts.start(id)]
        await kill
        ends = await starts.ends()
        assert all(ends[id] == [True] or "lost the connection" in str(ends[id]) for id in begun)
        sure |= {id for id in begun if ends[id] == [True]}
        while True:
            try:
                await starts.committer.commit([new_work(f"{n}-between", once=True)])
                break
            except AdapterError:  # it was killed before our loop could see it
                continue
    stored = await starts.stored()
    assert len(stored) == len(set(stored))
    assert sure <= set(stored)


async def test_every_caller_is_told_the_truth_when_connections_break(adapters: Any) -> None:
    """Through a Stem: calls by the hundred, some given up half-way, on connections that are cut."""
    async with (
        Proxy(adapters.url) as proxy,
        Stem(f"{proxy.url}?timeout=5", namespace=adapters.namespace) as stem,
    ):
        known: set[str] = set()
        unknown = gone = 0
        for n in range(10):
            calls = [asyncio.ensure_future(stem.enqueue("a", [m])) for m in range(400)]
            await asyncio.sleep(0)
            for call in calls[n::50]:
                call.cancel()
            lost = iter([False] * n + [True])
            proxy.cut_replies = lambda lost=lost: next(lost, False)  # type: ignore[misc]
            for answer in await asyncio.gather(*calls, return_exceptions=True):
                if isinstance(answer, asyncio.CancelledError):
                    gone += 1
                elif isinstance(answer, PublishError):
                    assert answer.outcome == "unknown"
                    unknown += 1
                else:
                    assert not isinstance(answer, BaseException)
                    known.add(answer.id)
        assert unknown
        assert gone == 80
        broker = await adapters.broker()
        stored: list[str] = []
        while got := await broker.receive(["default"], limit=10_000, lease=60, wait=0):
            stored += [each.message.id for each in got]
        assert len(stored) == len(set(stored))
        assert known <= set(stored)
        assert len(stored) <= len(known) + unknown + gone
        backend = await adapters.backend()
        assert all(status is not None for status in await backend.fetch(stored))
