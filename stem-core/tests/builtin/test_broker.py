"""The broker laws on both built-in stores. A name begins with the law it checks."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from stem_core.clock import ManualClock
from stem_core.envelope import Ack, DeadLetter, Delivery, Message, Release, Retry, Settlement
from stem_core.errors import AdapterError, StemError, UnsupportedCapability
from stem_core.ports import Broker


def message(id: str, *, queue: str = "q", **more) -> Message:
    return Message(id=id, queue=queue, sealed=more.pop("sealed", id.encode()), **more)


async def take(broker: Broker, *queues: str, limit: int = 100, lease: float = 30) -> list[Delivery]:
    return list(await broker.receive(queues or ("q",), limit=limit, lease=lease, wait=0))


def ids(deliveries) -> list[str]:
    return [each.message.id for each in deliveries]


async def settle(broker: Broker, delivery: Delivery, action) -> bool:
    (answer,) = await broker.settle([Settlement(delivery.receipt, action)])
    return answer


async def counts(broker: Broker, queue: str = "q") -> tuple[int, int, int, int]:
    stats = await broker.stats(queue)
    return stats.ready, stats.scheduled, stats.leased, stats.dead


async def test_law_1_delivered_until_acked(store):
    assert await store.broker.publish([message("a"), message("b")]) == [True, True]
    first = await take(store.broker)
    assert ids(first) == ["a", "b"]
    assert await take(store.broker) == []
    assert await settle(store.broker, first[0], Ack())
    assert await counts(store.broker) == (0, 0, 1, 0)


async def test_law_2_once_while_it_is_anywhere_and_for_a_while_after(opener, clock):
    store = await opener(once_ttl=100.0)
    once = message("a", once=True)
    assert await store.broker.publish([once, once]) == [True, False]  # waiting
    (delivery,) = await take(store.broker)
    assert await store.broker.publish([once]) == [False]  # leased
    await settle(store.broker, delivery, DeadLetter("r"))
    assert await store.broker.publish([once]) == [False]  # dead
    await store.broker.dead_replay("q")
    (delivery,) = await take(store.broker)
    await settle(store.broker, delivery, Ack())
    clock.advance(99)
    assert await store.broker.publish([once]) == [False]  # acked
    assert await store.broker.publish([message("a", queue="other", once=True)]) == [True]
    clock.advance(2)
    assert await store.broker.publish([once]) == [True]  # forgotten


@pytest.mark.parametrize("way", ["withdraw", "purge", "dead_purge"])
async def test_law_2_once_after_it_was_removed(store, way):
    once = message("a", once=True)
    await store.broker.publish([once])
    if way == "withdraw":
        assert await store.broker.withdraw(["a"]) == [True]
    elif way == "purge":
        assert await store.broker.purge("q") == 1
    else:
        (delivery,) = await take(store.broker)
        await settle(store.broker, delivery, DeadLetter("r"))
        assert await store.broker.dead_purge("q") == 1
    assert await store.broker.publish([once]) == [False]
    assert await counts(store.broker) == (0, 0, 0, 0)


@pytest.mark.parametrize("sealed", [b"", b"\x00", bytes(range(256)), b"\xff" * 100_000])
async def test_law_3_bytes_come_back(store, sealed):
    moment = datetime(2023, 11, 1, 12, 30, 15, 123_457, tzinfo=UTC)
    sent = message("a", sealed=sealed, priority=7, not_before=moment, once=True)
    await store.broker.publish([sent])
    (delivery,) = await take(store.broker)
    assert delivery.message == sent


async def test_law_4_an_ended_lease_makes_it_available_again(store, clock):
    await store.broker.publish([message("a")])
    (first,) = await take(store.broker, lease=10)
    assert first.lease_until.timestamp() == clock.time() + 10
    clock.advance(9.9)
    assert await take(store.broker) == []
    clock.advance(0.2)
    (second,) = await take(store.broker)
    assert (first.deliveries, second.deliveries, second.attempt) == (1, 2, 0)


async def test_law_5_a_receipt_settles_once_and_never_after_redelivery(store, clock):
    await store.broker.publish([message("a"), message("b")])
    first, other = await take(store.broker, lease=10)
    clock.advance(11)
    second, _ = await take(store.broker, lease=10)
    assert not await settle(store.broker, first, Ack())
    assert await store.broker.extend([first.receipt, other.receipt], 10) == [False, False]
    assert await store.broker.settle([Settlement(second.receipt, Ack())] * 2) == [True, False]
    assert not await settle(store.broker, second, Retry())
    for receipt in ("", "x", "1.zz", "ffffffffffffffffffff.1"):
        assert await store.broker.settle([Settlement(receipt, Ack())]) == [False]
    assert await counts(store.broker) == (0, 0, 1, 0)


async def test_law_6_extend_moves_the_deadline_both_ways(store, clock):
    await store.broker.publish([message("a")])
    (delivery,) = await take(store.broker, lease=10)
    for _ in range(5):
        clock.advance(8)
        assert await store.broker.extend([delivery.receipt], 10) == [True]
        assert await take(store.broker) == []
    assert await store.broker.extend([delivery.receipt], 1) == [True]
    clock.advance(1.5)
    assert ids(await take(store.broker)) == ["a"]


async def test_law_7_retry_counts_and_release_refunds(store, clock):
    await store.broker.publish([message("a")])
    (delivery,) = await take(store.broker)
    await settle(store.broker, delivery, Release(5))
    clock.advance(4.9)
    assert await take(store.broker) == []
    clock.advance(0.2)
    (delivery,) = await take(store.broker)
    assert (delivery.attempt, delivery.deliveries) == (0, 1)
    await settle(store.broker, delivery, Retry(5))
    assert await take(store.broker) == []
    assert await counts(store.broker) == (0, 1, 0, 0)
    clock.advance(5.1)
    (delivery,) = await take(store.broker)
    assert (delivery.attempt, delivery.deliveries, delivery.message) == (1, 1, message("a"))


async def test_law_8_never_early(store, clock):
    not_before = datetime.fromtimestamp(clock.time() + 10, UTC)
    await store.broker.publish(
        [
            message("a", not_before=not_before),
            message("b", delay=20),
            message("c", not_before=not_before, delay=30),
        ]
    )
    for step, expected in ((9.9, []), (0.2, ["a"]), (9.8, []), (0.2, ["b"]), (9.8, []), (0.2, ["c"])):
        clock.advance(step)
        assert ids(await take(store.broker)) == expected
    with pytest.raises(ValueError, match="time zone"):
        await store.broker.publish([message("n", not_before=datetime(2020, 1, 1))])  # noqa: DTZ001 (naive on purpose)


async def test_law_9_levels_then_publish_order_then_turns(store):
    await store.broker.publish([message(f"{place}", priority=place % 3) for place in range(9)])
    assert ids(await take(store.broker)) == ["2", "5", "8", "1", "4", "7", "0", "3", "6"]
    await store.broker.publish(
        [message(f"{queue}{place}", queue=queue, priority=5) for queue in "xyz" for place in range(3)]
    )
    await store.broker.publish([message("urgent", queue="z", priority=9)])
    got = ids(await take(store.broker, "x", "y", "z", limit=7))
    assert got[0] == "urgent"
    assert {queue: sum(id[0] == queue for id in got[1:]) for queue in "xyz"} == {"x": 2, "y": 2, "z": 2}
    assert [id for id in got if id[0] == "x"] == ["x0", "x1"]


async def test_law_9_turns_across_receives(store):
    await store.broker.publish([message(f"{queue}{n}", queue=queue) for queue in "ab" for n in range(4)])
    got = [ids(await take(store.broker, "a", "b", limit=1))[0] for _ in range(4)]
    assert sorted(got) == ["a0", "a1", "b0", "b1"]


async def test_law_10_queues_and_namespaces_are_isolated(opener):
    here, there = await opener(), await opener(namespace="another")
    await here.broker.publish([message("a", queue="naïve queue ✓"), message("a", queue="q")])
    assert await take(there.broker, "q", "naïve queue ✓") == []
    (delivery,) = await take(here.broker, "naïve queue ✓")
    assert not await settle(there.broker, delivery, Ack())
    assert await there.broker.withdraw(["a"]) == [False]
    assert here.broker.join(there.backend) is None
    assert await settle(here.broker, delivery, Ack())


async def test_law_11_conservation(store, clock):
    await store.broker.publish([message(f"{n}", delay=n % 2 * 50.0) for n in range(10)])
    for delivery, action in zip(
        await take(store.broker, limit=4), [Ack(), Retry(60), DeadLetter("r"), Release()], strict=True
    ):
        await settle(store.broker, delivery, action)
    assert await counts(store.broker) == (2, 6, 0, 1)
    (leased, *_) = await take(store.broker, limit=1)
    assert await counts(store.broker) == (1, 6, 1, 1)
    assert (await store.broker.stats("q")).oldest_ready_age == 0
    clock.advance(3)
    assert (await store.broker.stats("q")).oldest_ready_age == 3
    assert await store.broker.purge("q") == 7
    assert await counts(store.broker) == (0, 0, 1, 1)
    assert await settle(store.broker, leased, Ack())
    assert (await store.broker.stats("never seen")).oldest_ready_age is None


async def test_law_12_dead_letters(store, clock):
    await store.broker.publish([message(f"{n}", once=True) for n in range(5)])
    for delivery in await take(store.broker):
        await settle(store.broker, delivery, Retry())
    for place, delivery in enumerate(await take(store.broker)):
        await settle(store.broker, delivery, DeadLetter("even" if place % 2 == 0 else "odd", f"d{place}"))
        clock.advance(1)
    page = await store.broker.dead_list("q", limit=3)
    rest = await store.broker.dead_list("q", limit=3, cursor=page.cursor)
    assert [each.message.id for each in page.items + rest.items] == ["0", "1", "2", "3", "4"]
    assert rest.cursor is None
    first = page.items[0]
    assert (first.reason, first.detail, first.attempt, first.generation) == ("even", "d0", 1, 0)
    assert first.message == message("0", once=True)
    assert first.dead_at.timestamp() == clock.time() - 5
    before = first.dead_at.replace(second=first.dead_at.second + 2)
    assert len((await store.broker.dead_list("q", before=before)).items) == 2
    assert len((await store.broker.dead_list("q", reason="odd", ids=["1", "2"])).items) == 1

    assert await store.broker.dead_replay("q", reason="even", limit=2, dry_run=True) == [("0", 1), ("2", 1)]
    assert await counts(store.broker) == (0, 0, 0, 5)
    assert await store.broker.dead_replay("q", reason="even", limit=2) == [("0", 1), ("2", 1)]
    replayed = await take(store.broker)
    assert [(each.generation, each.attempt, each.deliveries) for each in replayed] == [(1, 0, 1)] * 2
    assert replayed[1].message == message("2", once=True)

    assert await store.broker.dead_purge("q", keep=1) == 2
    assert [each.message.id for each in (await store.broker.dead_list("q")).items] == ["4"]
    assert await store.broker.dead_purge("q", ids=["4"]) == 1
    assert await store.broker.dead_replay("q") == []


async def test_law_13_concurrent_receives_share_nothing(store):
    await asyncio.gather(*(store.broker.publish([message(f"{n}.{m}") for m in range(10)]) for n in range(20)))
    received = await asyncio.gather(*(take(store.broker, limit=13) for _ in range(20)))
    got = [id for deliveries in received for id in ids(deliveries)]
    assert len(got) == len(set(got)) == 200


async def test_law_14_receive_wakes_for_new_and_newly_due_work(store, clock):
    async def waiting(**more):
        task = asyncio.ensure_future(store.broker.receive(["q"], limit=10, lease=30, wait=60, **more))
        await asyncio.sleep(0)
        return task

    task = await waiting()
    await store.broker.publish([message("a")])
    assert ids(await task) == ["a"]
    await store.broker.publish([message("b", delay=10)])
    task = await waiting()
    while not clock._alarms:
        await asyncio.sleep(0.001)
    assert not task.done()
    clock.advance(10)
    assert ids(await task) == ["b"]
    assert await store.broker.receive(["q"], limit=0, lease=1, wait=60) == []
    assert await store.broker.receive(["q"], limit=1, lease=1, wait=0.01) == []


async def test_law_14_a_cancelled_receive_keeps_nothing(store):
    task = asyncio.ensure_future(store.broker.receive(["q"], limit=10, lease=1e6, wait=60))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await store.broker.publish([message("a")])
    tasks = [asyncio.ensure_future(take(store.broker, lease=1e6)) for _ in range(3)]
    await asyncio.sleep(0)
    for each in tasks:
        each.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    if not any(isinstance(each, list) and each for each in done):
        (delivery,) = await store.broker.receive(["q"], limit=1, lease=1, wait=10)
        assert delivery.deliveries == 1


async def test_law_16_close_and_use_after_close(opener):
    store = await opener()
    waiting = asyncio.ensure_future(store.broker.receive(["q"], limit=1, lease=1, wait=60))
    following = asyncio.ensure_future(anext(store.broker.subscribe(["c"])))
    result = asyncio.ensure_future(store.backend.wait("x", 60))
    await asyncio.sleep(0.01)
    for each in (store.broker, store.backend):
        await each.close()
        await each.close()
    for task in (waiting, following, result):
        with pytest.raises(AdapterError, match="open"):
            await task
    for call in (
        store.broker.publish([message("a")]),
        store.broker.receive(["q"], limit=1, lease=1, wait=0),
        store.broker.stats("q"),
        store.backend.fetch(["a"]),
        store.committer.commit([]),
    ):
        with pytest.raises(StemError, match="open"):
            await call
    await store.broker.open()
    assert await store.broker.publish([message("a")]) == [True]


async def test_law_17_withdraw(store, clock):
    await store.broker.publish([message("a"), message("b", delay=9), message("c", priority=3), message("d")])
    (leased,) = await take(store.broker, limit=1)
    assert leased.message.id == "c"
    assert await store.broker.withdraw(["a", "b", "c", "x"]) == [True, True, False, False]
    clock.advance(10)
    assert ids(await take(store.broker)) == ["d"]
    assert await settle(store.broker, leased, Ack())


async def test_law_18_broadcast_reaches_every_current_subscriber(store):
    await store.broker.broadcast("c", b"before")
    feeds = [store.broker.subscribe(["c", "d"]) for _ in range(3)]
    firsts = [asyncio.ensure_future(anext(feed)) for feed in feeds]
    for _ in range(20):
        await asyncio.sleep(0.005)
    for data in (b"1", b"2"):
        await store.broker.broadcast("c", data)
    await store.broker.broadcast("e", b"not asked for")
    await store.broker.broadcast("d", b"3")
    for feed, first in zip(feeds, firsts, strict=True):
        assert [await first, await anext(feed), await anext(feed)] == [("c", b"1"), ("c", b"2"), ("d", b"3")]
        await feed.aclose()


async def test_undeclared_capabilities_are_refused(store):
    assert not store.broker.capabilities.transactional_publish
    with pytest.raises(UnsupportedCapability, match=f"{store.scheme}.*transactional_publish"):
        await store.broker.commit_on(object(), [])
    with pytest.raises(UnsupportedCapability, match="publish_connection"):
        store.broker.commit_on_sync(object(), [])
    with pytest.raises(ValueError, match="priority 10"):
        await store.broker.publish([message("a", priority=10)])


async def test_cost_does_not_grow_with_the_queue(store, clock: ManualClock):
    """Counted, not timed: nothing stays behind of what has passed through."""
    await store.broker.publish([message(f"w{n}") for n in range(200)])
    await store.broker.withdraw([f"w{n}" for n in range(200)])
    for turn in range(20):
        await store.broker.publish([message(f"{turn}.{n}", once=n % 2 == 0) for n in range(50)])
        deliveries = await take(store.broker)
        await store.broker.extend([each.receipt for each in deliveries], 60)
        await store.broker.settle([Settlement(each.receipt, Ack()) for each in deliveries])
    clock.advance(7200)
    await store.broker.publish([message("last", once=True)])
    if store.scheme == "memory":
        queue = store.broker._store.queues._queues["q"]
        assert len(queue.by_id) == 1
        assert sum(len(each._heap) for each in (*queue.levels, queue.leased, queue.scheduled)) < 500
        assert not store.broker._store.queues._remembered
