"""What breaks around the adapter, one thing at a time: nothing acknowledged is lost, nothing is silent."""

from __future__ import annotations

import asyncio
import time

import pytest

from stem_core.envelope import Ack, Message, Settlement
from stem_core.errors import AdapterError, PublishError, StemError
from stem_core.ports.committer import Step
from stem_core.status import StatusUpdate, TaskState
from stem_redis import doorbell
from tests.servers import ValkeyServer

from .load import Load
from .proxy import Proxy


def message(id: str, **fields: object) -> Message:
    return Message(**{"id": id, "queue": "q", "sealed": b"\xff" * 50, **fields})  # type: ignore[arg-type]


async def test_cut_connections_are_an_error_and_then_forgotten(adapters) -> None:
    async with Proxy(adapters.url) as proxy:
        broker = await adapters.broker(proxy.url)
        waiting = asyncio.create_task(broker.receive(["q"], limit=1, lease=5, wait=30))
        await asyncio.sleep(0.1)
        proxy.cut()
        with pytest.raises(AdapterError, match="lost the connection"):
            await waiting
        await broker.publish([message("m")])
        assert len(await broker.receive(["q"], limit=1, lease=5, wait=1)) == 1


async def test_half_open_connections_are_noticed(adapters, monkeypatch) -> None:
    monkeypatch.setattr(doorbell, "_GRACE", 0.2)
    async with Proxy(adapters.url) as proxy:
        broker = await adapters.broker(f"{proxy.url}?timeout=0.3", connect_timeout=0.3)
        waiting = asyncio.create_task(broker.receive(["q"], limit=1, lease=5, wait=0.4))
        await asyncio.sleep(0.1)
        proxy.swallow = True
        async with asyncio.timeout(10):
            with pytest.raises(AdapterError, match="did not answer within"):
                await waiting
            with pytest.raises(PublishError, match=r"did not answer within 0\.3 s"):
                await broker.publish([message("m")])
        proxy.swallow = False
        proxy.cut()
        await broker.publish([message("m")])


async def test_a_slow_network_is_only_slow(adapters) -> None:
    async with Proxy(adapters.url) as proxy:
        broker = await adapters.broker(proxy.url)
        proxy.delay = 0.1
        assert await asyncio.gather(*(broker.publish([message(str(n))]) for n in range(20))) == [[True]] * 20
        assert len(await broker.receive(["q"], limit=20, lease=5, wait=1)) == 20


async def test_a_lost_answer_is_unknown_and_repeating_a_once_message_is_safe(adapters) -> None:
    async with Proxy(adapters.url) as proxy:
        broker = await adapters.broker(proxy.url)
        lost = iter([True])
        proxy.cut_replies = lambda: next(lost, False)
        with pytest.raises(PublishError) as caught:
            await broker.publish([message("m", once=True)])
        assert caught.value.outcome == "unknown"
        assert await broker.publish([message("m", once=True)]) == [False]
        (delivery,) = await broker.receive(["q"], limit=5, lease=5, wait=0)
        lost = iter([True])
        with pytest.raises(AdapterError):
            await broker.settle([Settlement(delivery.receipt, Ack())])
        assert await broker.settle([Settlement(delivery.receipt, Ack())]) == [False]
        assert (await broker.stats("q")).leased == 0


async def test_flushed_scripts_are_sent_again(adapters) -> None:
    with ValkeyServer() as server:
        broker, backend = await adapters.broker(server.url), await adapters.backend(server.url)
        for n in range(3):
            await broker.server.command("SCRIPT", "FLUSH")
            await broker.publish([message(f"{n}-{m}") for m in range(1200)])
            await broker.server.command("SCRIPT", "FLUSH")
            got = await broker.receive(["q"], limit=2000, lease=5, wait=0)
            assert [each.message.id for each in got] == [f"{n}-{m}" for m in range(1200)]
            await broker.server.command("SCRIPT", "FLUSH")
            assert all(await broker.settle([Settlement(each.receipt, Ack()) for each in got]))
            assert await backend.record([StatusUpdate(id=f"{n}", state=TaskState.QUEUED, ttl=9)]) == [True]


async def test_killed_clients_come_back(adapters, eventually) -> None:
    with ValkeyServer() as server:
        broker, admin = await adapters.broker(server.url), await adapters.broker(server.url)
        await broker.publish([message("before")])  # leaves an idle connection to be killed
        waiting = asyncio.create_task(broker.receive(["other"], limit=1, lease=5, wait=30))
        await asyncio.sleep(0.1)
        await admin.server.command("CLIENT", "KILL", "TYPE", "normal")
        with pytest.raises(AdapterError):
            await waiting

        async def published() -> bool:
            try:
                await broker.publish([message("m", once=True)])
            except PublishError:  # it was killed before our loop could see it
                return False
            return True

        await eventually(published)
        assert (await broker.stats("q")).ready == 2


async def test_a_read_only_server_refuses_and_nothing_is_stored(adapters) -> None:
    with ValkeyServer() as server:
        broker, backend = await adapters.broker(server.url), await adapters.backend(server.url)
        committer = broker.join(backend)
        assert committer is not None
        await broker.server.command("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(PublishError, match="read-only replica: connect to the primary") as caught:
            await broker.publish([message("m", once=True)])
        assert caught.value.outcome == "refused"
        for attempt in (
            broker.receive(["q"], limit=1, lease=5, wait=0),
            backend.record([StatusUpdate(id="t", state=TaskState.QUEUED)]),
            committer.commit([Step(updates=(StatusUpdate(id="t", state=TaskState.QUEUED),))]),
        ):
            with pytest.raises(AdapterError, match="read-only"):
                await attempt
        with pytest.raises(PublishError, match="read-only") as caught:
            await committer.commit([Step(publishes=(message("c"),))])
        assert caught.value.outcome == "refused"
        await broker.server.command("REPLICAOF", "NO", "ONE")
        assert await broker.publish([message("m", once=True)]) == [True]


async def test_a_user_who_may_not_write_is_told_so(adapters) -> None:
    with ValkeyServer() as server:
        admin = await adapters.broker(server.url)
        await admin.server.command("ACL", "SETUSER", "reader", "on", ">pw", "~*", "&*", "+@all", "-@write")
        broker = await adapters.broker(server.url.replace("redis://", "redis://reader:pw@"))
        with pytest.raises(PublishError, match=r"(?i)perm.*see the ACL in the README"):
            await broker.publish([message("m")])
        assert (await admin.stats("q")).ready == 0


async def test_a_full_server_refuses_whole_publishes_and_lets_work_be_finished(adapters) -> None:
    with ValkeyServer(maxmemory="12mb", maxmemory_policy="noeviction") as server:
        broker, backend = await adapters.broker(server.url), await adapters.backend(server.url)
        committer = broker.join(backend)
        assert committer is not None
        stored = 0
        for size in (20_000, 0):  # the last messages that fit are small
            with pytest.raises(PublishError, match="maxmemory: raise it, or drain") as caught:
                for n in range(100_000):
                    stored += sum(
                        await broker.publish([message(f"{size}-{n}", sealed=bytes(size), once=True)])
                    )
            assert caught.value.outcome == "refused"
        committed = 0
        with pytest.raises(PublishError, match="maxmemory") as caught:
            for n in range(100_000):
                queued = StatusUpdate(id=f"{n}", state=TaskState.QUEUED, ttl=60)
                await committer.commit([Step(publishes=(message(f"{n}"),), updates=(queued,))])
                committed += 1
        assert caught.value.outcome == "refused"
        with pytest.raises(AdapterError, match="maxmemory"):
            for n in range(100_000):
                await backend.state_write(f"k{n}", b"v", expect=0, ttl=None)
        statuses = await backend.fetch([f"{n}" for n in range(committed + 1)])
        assert sum(status is not None for status in statuses) == committed
        stored += committed
        assert (await broker.stats("q")).ready == stored
        # Finishing frees memory, so it is not refused.
        got = await broker.receive(["q"], limit=stored, lease=30, wait=0)
        assert len(got) == stored
        half = len(got) // 2
        assert all(await broker.settle([Settlement(each.receipt, Ack()) for each in got[:half]]))
        steps = [
            Step(
                settlement=Settlement(each.receipt, Ack()),
                updates=(StatusUpdate(id=each.message.id, state=TaskState.SUCCEEDED, ttl=60),),
            )
            for each in got[half:]
        ]
        assert all(await committer.commit(steps))
        assert await broker.publish([message("after", once=True)]) == [True]


async def test_a_loading_server_is_an_error_that_passes(adapters, eventually) -> None:
    with ValkeyServer(appendfsync="always", enable_debug_command="yes") as server:
        broker = await adapters.broker(server.url)
        await broker.publish([message(f"{n}") for n in range(100)])
        server.kill()
        with pytest.raises(StemError):
            await broker.stats("q")
        server.start()

        async def back() -> bool:
            try:
                return (await broker.stats("q")).ready == 100
            except AdapterError:
                return False

        await eventually(back)


@pytest.mark.parametrize(
    "restarts",
    [pytest.param(1), pytest.param(10, marks=pytest.mark.long)],
)
async def test_a_killed_server_loses_nothing_it_acknowledged(adapters, restarts: int) -> None:
    """SIGKILL in mid-load, append-only file on: every acknowledged publish is consumed in the end.

    With ``everysec`` a server answers before it writes while a sync is under way, and a kill in that moment loses.
    """
    with ValkeyServer(appendfsync="always") as server:
        async with Load(adapters, server.url) as load:
            for _ in range(restarts):
                await load.progress(300)
                server.kill()
                await asyncio.sleep(0.2)
                server.start()
                start = time.monotonic()
                await load.progress(1)
                assert time.monotonic() - start < 10
            await load.drain()
        assert load.lost() == set()
        assert load.published


async def test_a_frozen_server_is_waited_for_or_reported(adapters) -> None:
    with ValkeyServer() as server:
        broker = await adapters.broker(f"{server.url}?timeout=0.3")
        server.pause()
        try:
            with pytest.raises(PublishError) as caught:
                await broker.publish([message("m", once=True)])
            assert caught.value.outcome == "unknown"
        finally:
            server.resume()
        await broker.publish([message("m", once=True)])
        assert (await broker.stats("q")).ready == 1
