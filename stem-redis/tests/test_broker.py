"""What is Redis's own about the broker; the laws of every broker are in ``test_contract``."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from stem_core.envelope import (
    Ack,
    Action,
    DeadLetter,
    Delivery,
    Message,
    Receipt,
    Release,
    Retry,
    Settlement,
)
from stem_core.errors import AdapterError, PayloadTooLarge, UnsupportedCapability
from stem_redis.broker import RedisBroker
from stem_redis.keys import Keys

QUEUE = "a {queue}: with % and *"


def message(id: str, **fields: object) -> Message:
    return Message(**{"id": id, "queue": QUEUE, "sealed": b"\x00\xff" + id.encode(), **fields})  # type: ignore[arg-type]


def ids(deliveries: Sequence[Delivery]) -> list[str]:
    return [delivery.message.id for delivery in deliveries]


async def take(broker: RedisBroker, limit: int = 100, *queues: str, lease: float = 30, wait: float = 0):
    return await broker.receive(queues or [QUEUE], limit=limit, lease=lease, wait=wait)


async def settle(broker: RedisBroker, deliveries: Sequence[Delivery], action: Action) -> Sequence[bool]:
    return await broker.settle([Settlement(each.receipt, action) for each in deliveries])


async def test_levels_are_strict_across_the_queues_of_one_receive(broker: RedisBroker) -> None:
    await broker.publish([message(f"{n}", priority=n, queue=QUEUE if n % 2 else "other") for n in range(10)])
    first = await take(broker, 7, QUEUE, "other")
    assert ids(first) == ["9", "8", "7", "6", "5", "4", "3"]
    assert ids(await take(broker, 7, QUEUE, "other")) == ["2", "1", "0"]


async def test_equal_levels_of_queues_take_turns(broker: RedisBroker) -> None:
    await broker.publish([message(f"{queue}{n}", queue=queue) for queue in "ab" for n in range(4)])
    got = [ids(await take(broker, 1, "a", "b"))[0] for _ in range(8)]
    assert {got[0][0], got[1][0]} == {"a", "b"}
    assert [each for each in got if each[0] == "a"] == ["a0", "a1", "a2", "a3"]


async def test_a_limit_is_exact_over_levels_and_expired_leases(broker: RedisBroker, eventually) -> None:
    await broker.publish([message(f"{n}", priority=n % 10) for n in range(60)])
    assert len(await take(broker, 30, lease=0.01)) == 30

    got: list[Delivery] = []

    async def all_again() -> bool:
        some = await take(broker, 7)
        assert len(some) <= 7
        got.extend(some)
        return len(got) == 60

    await eventually(all_again)
    assert len(set(ids(got))) == 60
    assert sorted({each.deliveries for each in got}) == [1, 2]


async def test_a_short_lease_does_not_shorten_a_long_one(broker: RedisBroker, eventually) -> None:
    await broker.publish([message("long"), message("short")])
    (long,) = await take(broker, 1, lease=60)
    (short,) = await take(broker, 1, lease=0.05)
    (again,) = await take(broker, 10, lease=0.05, wait=5)
    assert again.message.id == "short"
    assert await settle(broker, [short], Ack()) == [False]
    assert await settle(broker, [long, again], Ack()) == [True, True]


async def test_extend_can_also_shorten_and_wakes_who_waits(broker: RedisBroker) -> None:
    await broker.publish([message("m")])
    (first,) = await take(broker, lease=600)
    waiting = asyncio.create_task(take(broker, wait=20))
    await asyncio.sleep(0)
    assert await broker.extend([first.receipt], 0.2) == [True]
    async with asyncio.timeout(4):  # less than what idle workers wait at most
        (again,) = await waiting
    assert again.deliveries == 2
    assert await broker.extend([first.receipt], 5) == [False]


async def test_a_released_message_is_refunded_and_its_old_receipt_is_worthless(broker: RedisBroker) -> None:
    await broker.publish([message("m")])
    receipts: list[Receipt] = []
    for _ in range(3):
        (delivery,) = await take(broker)
        assert (delivery.attempt, delivery.deliveries) == (0, 1)
        receipts.append(delivery.receipt)
        assert await settle(broker, [delivery], Release()) == [True]
    (last,) = await take(broker)
    assert await broker.settle([Settlement(receipt, Ack()) for receipt in receipts]) == [False] * 3
    assert await settle(broker, [last, last], Ack()) == [True, False]


async def test_counts_survive_a_delay(broker: RedisBroker) -> None:
    await broker.publish([message("m", once=True)])
    (first,) = await take(broker, lease=0.01)
    (second,) = await take(broker, wait=5)
    await settle(broker, [second], Release(0.01))
    (third,) = await take(broker, wait=5)
    assert (third.attempt, third.deliveries) == (0, 2)
    await settle(broker, [third], Retry(0.01))
    (fourth,) = await take(broker, wait=5)
    assert (fourth.attempt, fourth.deliveries) == (1, 1)
    await settle(broker, [fourth], DeadLetter("why", "detail\x00"))
    assert await broker.dead_replay(QUEUE) == [("m", 1)]
    (fifth,) = await take(broker)
    assert (fifth.generation, fifth.attempt, fifth.deliveries) == (1, 0, 1)
    assert fifth.message == first.message
    assert await broker.publish([message("m", once=True)]) == [False]


async def test_one_bell_wakes_as_many_workers_as_there_is_work_for(broker: RedisBroker) -> None:
    waiting = [asyncio.create_task(take(broker, 1, wait=30)) for _ in range(8)]
    await asyncio.sleep(0.1)
    await broker.publish([message(str(n)) for n in range(8)])
    async with asyncio.timeout(4):
        got = await asyncio.gather(*waiting)
    assert sorted(id for each in got for id in ids(each)) == [str(n) for n in range(8)]


async def test_a_bell_is_not_lost_with_a_cancelled_worker(broker: RedisBroker) -> None:
    doomed = [asyncio.create_task(take(broker, 1, wait=30)) for _ in range(3)]
    await asyncio.sleep(0.1)
    healthy = asyncio.create_task(take(broker, 1, wait=30))
    await asyncio.sleep(0.1)
    for each in doomed:
        each.cancel()
    await asyncio.gather(*doomed, return_exceptions=True)
    await broker.publish([message("m")])
    async with asyncio.timeout(4):
        assert ids(await healthy) == ["m"]


async def test_a_delayed_message_wakes_a_worker_that_began_to_wait_before(broker: RedisBroker) -> None:
    waiting = asyncio.create_task(take(broker, wait=30))
    await asyncio.sleep(0.1)
    await broker.publish([message("late", delay=60), message("soon", delay=0.2)])
    async with asyncio.timeout(4):
        assert ids(await waiting) == ["soon"]


async def test_more_than_one_claim_promotes_become_ready_by_and_by(broker: RedisBroker, eventually) -> None:
    await broker.publish([message(f"{n}", delay=0.05) for n in range(1200)])
    got: list[Delivery] = []

    async def all_there() -> bool:
        got.extend(await take(broker, 300, wait=1))
        return len(got) == 1200

    await eventually(all_there)
    assert len(set(ids(got))) == 1200


async def test_nothing_is_left_at_rest_but_what_expires(broker: RedisBroker, adapters, eventually) -> None:
    await broker.publish([message(f"{n}", once=n % 2 == 0, priority=n % 10, delay=n % 3) for n in range(30)])
    await broker.publish([message(f"purged{n}", once=True, delay=50 * (n % 2)) for n in range(4)])
    done: list[Delivery] = []

    async def drained() -> bool:
        some = await take(broker, 100, wait=1)
        await settle(broker, [each for each in some if each.attempt == 0], Retry(0.01))
        again = [each for each in some if each.attempt]
        await settle(broker, again, Ack())
        done.extend(again)
        return len(done) >= 32

    await eventually(drained)
    await broker.purge(QUEUE)
    stats = await broker.stats(QUEUE)
    assert (stats.ready, stats.scheduled, stats.leased, stats.dead) == (0, 0, 0, 0)
    counts = await broker.counts(QUEUE)
    assert counts == {"published": 34, "acked": 32, "purged": 2}
    await take(broker)
    left = {}
    for pattern in Keys(adapters.namespace).everything():
        for key in await broker.server.command("KEYS", pattern.replace("{", "[{]")):
            left[key.decode()] = await broker.server.command("PTTL", key)
    assert left
    assert all(ttl > 0 for ttl in left.values()), left
    roots = {key.partition("}:")[2].partition(":")[0] for key in left}
    assert roots <= {"s0", *(f"s{n}" for n in range(10)), "once", "counts", "bell"}


async def test_dead_letters_page_and_purge(broker: RedisBroker) -> None:
    await broker.publish([message(f"{n:02}") for n in range(25)])
    dead = await take(broker)
    await settle(broker, dead[:10], DeadLetter("a"))
    await settle(broker, dead[10:], DeadLetter("b"))
    seen, cursor = [], None
    while True:
        page = await broker.dead_list(QUEUE, reason="b", limit=4, cursor=cursor)
        seen += [each.message.id for each in page.items]
        cursor = page.cursor
        if cursor is None:
            break
    assert seen == [f"{n:02}" for n in range(10, 25)]
    assert await broker.dead_purge(QUEUE, reason="b", keep=2, limit=5) == 5
    assert await broker.dead_replay(QUEUE, ids=["15", "nowhere"], dry_run=True) == [("15", 1)]
    assert await broker.dead_purge(QUEUE, reason="b", keep=2) == 8
    assert (await broker.stats(QUEUE)).dead == 12
    assert len(await broker.dead_replay(QUEUE)) == 12
    assert await broker.counts(QUEUE) == {"published": 25, "acked": 0, "purged": 13}


async def test_over_the_size_limit_nothing_is_stored(broker: RedisBroker) -> None:
    limit = broker.capabilities.max_size
    assert limit is not None
    with pytest.raises(PayloadTooLarge, match="big"):
        await broker.publish([message("small"), message("big", sealed=bytes(limit + 1))])
    assert (await broker.stats(QUEUE)).ready == 0


async def test_what_is_not_declared_is_refused_with_the_way_out(broker: RedisBroker) -> None:
    with pytest.raises(UnsupportedCapability, match="revoke"):
        await broker.withdraw(["m"])
    with pytest.raises(UnsupportedCapability, match="stem-postgres"):
        await broker.commit_on(object(), [])
    with pytest.raises(UnsupportedCapability, match="stem-postgres"):
        broker.commit_on_sync(object(), [])


async def test_use_after_close_is_an_error(broker: RedisBroker) -> None:
    await broker.close()
    await broker.close()
    with pytest.raises(AdapterError, match="closed"):
        await broker.publish([message("m")])
    with pytest.raises(AdapterError, match="closed"):
        await take(broker)
