"""Stopping, draining, recycling, pausing, and surviving a broker that is out of reach."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

from stem_core import Stem
from stem_core.errors import AdapterError
from stem_core.worker import Worker
from stem_core.worker.queues import QueuePlan


async def test_running_tasks_end_and_claimed_ones_go_back() -> None:
    stem = Stem("memory://")
    gate, running = asyncio.Event(), asyncio.Event()

    @stem.task
    async def held(n: int) -> int:
        running.set()
        await gate.wait()
        return n

    async with stem:
        handles = [await held.enqueue(n) for n in range(5)]
        worker = Worker(stem, concurrency=2, prefetch=2)
        working = asyncio.ensure_future(worker.run())
        await asyncio.wait_for(running.wait(), 5)
        while worker.stats.held < 4:
            await asyncio.sleep(0.005)
        worker.stop()
        while worker.stats.given_back < 2:
            await asyncio.sleep(0.005)
        assert not working.done()
        gate.set()
        await asyncio.wait_for(working, 5)
        assert [await handle.result(timeout=1) for handle in handles[:2]] == [0, 1]
        left = await stem.broker.receive(["default"], limit=10, lease=1, wait=0)
        assert [(each.message.id, each.deliveries) for each in left] == [
            (handle.id, 1) for handle in handles[2:]
        ]


async def test_what_outlasts_the_drain_is_cancelled_and_given_back() -> None:
    stem = Stem("memory://")
    running, cleaned = asyncio.Event(), []

    @stem.task
    async def endless() -> None:
        running.set()
        try:
            await asyncio.sleep(60)
        finally:
            cleaned.append(True)

    async with stem:
        handle = await endless.enqueue()
        worker = Worker(stem, drain_timeout=0.1)
        working = asyncio.ensure_future(worker.run())
        await asyncio.wait_for(running.wait(), 5)
        worker.stop()
        await asyncio.wait_for(working, 5)
        assert cleaned == [True]
        (again,) = await stem.broker.receive(["default"], limit=10, lease=1, wait=0)
        assert (again.message.id, again.attempt, again.deliveries) == (handle.id, 0, 1)


async def test_a_thread_that_does_not_end_keeps_nobody_waiting() -> None:
    stem = Stem("memory://")
    gate = asyncio.Event()
    loop = asyncio.get_running_loop()

    @stem.task
    def stuck() -> None:
        loop.call_soon_threadsafe(gate.set)
        time.sleep(3)

    async with stem:
        await stuck.enqueue()
        worker = Worker(stem)
        working = asyncio.ensure_future(worker.run())
        await asyncio.wait_for(gate.wait(), 5)
        worker.stop(hurry=True)
        started = time.monotonic()
        await asyncio.wait_for(working, 5)
        assert time.monotonic() - started < 2.5
        assert (await stem.broker.stats("default")).ready == 1


async def test_it_stops_by_itself_after_max_tasks_and_max_memory() -> None:
    stem = Stem("memory://")

    @stem.task
    async def noop() -> None: ...

    async with stem:
        for _ in range(60):
            await noop.enqueue()
        worker = Worker(stem, max_tasks=5, concurrency=1)
        await asyncio.wait_for(worker.run(), 5)
        assert worker.stats.succeeded == 5
        fat = Worker(stem, max_memory=1)
        await asyncio.wait_for(fat.run(), 5)
        assert 50 <= fat.stats.succeeded <= 55
        assert (await stem.broker.stats("default")).leased == 0


class Flaky:
    """A broker that is out of reach while it is told to be."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.down = False
        self.hanging = False
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def join(self, backend: Any) -> Any:
        return self.inner.join(backend)

    async def open(self) -> None:
        self.asked += 1
        if self.down:
            raise AdapterError("no route to store")
        await self.inner.open()

    async def receive(self, queues: Sequence[str], *, limit: int, lease: float, wait: float) -> Any:
        self.asked += 1
        if self.down:
            raise AdapterError("no route to store")
        if self.hanging:
            await asyncio.sleep(3600)
        return await self.inner.receive(queues, limit=limit, lease=lease, wait=wait)


async def test_a_broker_out_of_reach_at_start_and_in_the_middle(caplog: pytest.LogCaptureFixture) -> None:
    stem = Stem("memory://")
    broker = Flaky(stem.broker)
    stem.wiring.broker = broker  # type: ignore[assignment]

    @stem.task
    async def add(x: int, y: int) -> int:
        return x + y

    broker.down = True
    worker = Worker(stem, wait=0.05)
    with caplog.at_level(logging.WARNING, logger="stem.worker"):
        working = asyncio.ensure_future(worker.run())
        while broker.asked < 2:
            await asyncio.sleep(0.005)
        assert not worker.healthy()
        broker.down = False
        while not worker.started:
            await asyncio.sleep(0.005)
        assert await (await add.enqueue(1, 1)).result(timeout=5) == 2
        broker.down = True
        asked = broker.asked
        while broker.asked < asked + 3:
            await asyncio.sleep(0.005)
        broker.down = False
        assert await (await add.enqueue(2, 2)).result(timeout=20) == 4
        assert worker.stats.receive_errors >= 2
        assert worker.healthy()
    worker.stop()
    await asyncio.wait_for(working, 5)
    await stem.close()
    assert "The stores are out of reach" in caplog.text
    assert "Receiving failed (AdapterError: no route to store)" in caplog.text


async def test_a_receive_that_never_returns_is_not_healthy() -> None:
    stem = Stem("memory://")
    broker = Flaky(stem.broker)
    stem.wiring.broker = broker  # type: ignore[assignment]
    async with stem, Worker(stem, wait=0.05) as worker:
        assert worker.healthy()
        broker.hanging = True
        while worker.healthy():
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("manner", ["answers late", "hangs", "swallows its cancellation"])
async def test_a_receive_that_is_out_at_a_stop_loses_nothing(manner: str) -> None:
    stem = Stem("memory://")
    out, stopped = asyncio.Event(), asyncio.Event()

    class Slow(Flaky):
        async def receive(self, queues: Sequence[str], **asked: Any) -> Any:
            if out.is_set():  # where a worker looks at its queues once more
                return await self.inner.receive(queues, **asked)
            out.set()
            await stopped.wait()
            if manner != "answers late":
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    if manner == "hangs":
                        raise
            return await self.inner.receive(queues, **{**asked, "wait": 0.0})

    @stem.task
    async def noop() -> None: ...

    async with stem:
        stem.wiring.broker = Slow(stem.broker)  # type: ignore[assignment]
        worker = Worker(stem)
        working = asyncio.ensure_future(worker.run())
        await asyncio.wait_for(out.wait(), 5)
        handle = await noop.enqueue()
        worker.stop()
        for _ in range(10):  # its parts have heard of it
            await asyncio.sleep(0)
        stopped.set()
        await asyncio.wait_for(working, 5)
        assert working.result() is None
        assert worker.stats.given_back == (0 if manner == "hangs" else 1)
        (left,) = await stem.broker.receive(["default"], limit=10, lease=1, wait=0)
        assert (left.message.id, left.deliveries) == (handle.id, 1)


async def test_a_worker_that_is_cancelled_while_it_stops_is_cancelled() -> None:
    stem = Stem("memory://")
    broker = Flaky(stem.broker)
    stem.wiring.broker = broker  # type: ignore[assignment]
    broker.hanging = True
    async with stem:
        working = asyncio.ensure_future(Worker(stem).run())
        while broker.asked < 2:
            await asyncio.sleep(0.005)
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(working, 5)


async def test_a_worker_that_is_full_is_healthy() -> None:
    stem = Stem("memory://")
    gate = asyncio.Event()

    @stem.task
    async def held() -> None:
        await gate.wait()

    async with stem, Worker(stem, concurrency=1, wait=0.05) as worker:
        handle = await held.enqueue()
        while worker.stats.running == 0:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.5)  # ten waits, in which there is no slot to receive for
        assert worker.healthy()
        gate.set()
        await handle.result(timeout=5)


async def test_a_strict_order_empties_the_first_queue_first() -> None:
    stem = Stem("memory://")
    order: list[str] = []

    @stem.task(queue="low")
    async def low() -> None:
        order.append("low")

    @stem.task(queue="high")
    async def high() -> None:
        order.append("high")

    async with stem:
        for _ in range(10):
            await low.enqueue()
            await high.enqueue()
        worker = Worker(stem, queues=["high", "low"], queue_order="strict", concurrency=1)
        await worker.run(until_empty=True)
    assert order == ["high"] * 10 + ["low"] * 10


def test_weights_share_the_first_look() -> None:
    plan = QueuePlan(("high", "low"), weights=(3, 1), draw=Random(1))
    firsts = Counter(next(iter(plan.turns(2.0)))[0][0] for _ in range(4000))
    assert 2800 < firsts["high"] < 3200
    turns = list(plan.turns(2.0))
    assert turns[-1] == (("high", "low"), 2.0)
    plan.paused = frozenset({"high"})
    assert list(plan.turns(2.0)) == [(("low",), 2.0)]


async def test_a_paused_queue_is_left_alone() -> None:
    stem = Stem("memory://")

    @stem.task
    async def noop() -> str:
        return "done"

    async with stem, Worker(stem, wait=0.05) as worker:
        worker.pause("default")
        await asyncio.sleep(0.1)  # the receive under way may still bring something
        handle = await noop.enqueue()
        await asyncio.sleep(0.3)
        assert worker.stats.received == 0
        worker.resume("default")
        assert await handle.result(timeout=5) == "done"


async def test_what_was_paused_before_the_start_is_paused_from_the_start() -> None:
    stem = Stem("memory://")

    @stem.task
    async def noop() -> str:
        return "done"

    worker = Worker(stem, queues=["mail", "default"], wait=0.05)
    worker.pause("mail")
    async with stem:
        mail = await noop.with_options(queue="mail").enqueue()
        other = await noop.enqueue()
        for _ in range(2):  # and when it is started again
            async with worker:
                assert await other.result(timeout=5) == "done"
                assert worker.stats.received == 1
        async with worker:
            worker.resume()
            assert await mail.result(timeout=5) == "done"


async def test_a_stop_in_a_hurry_is_of_that_run_alone() -> None:
    stem = Stem("memory://")

    @stem.task
    async def noop() -> str:
        return "done"

    worker = Worker(stem, wait=0.05)
    async with stem:
        async with worker:
            worker.stop(hurry=True)
        async with worker:
            assert await (await noop.enqueue()).result(timeout=5) == "done"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"queues": []}, "name at least one"),
        ({"queues": ""}, "'' cannot be a queue name"),
        ({"queues": ["mail", 5]}, "5 cannot be a queue name"),
        ({"queues": {"mail": 1.5}}, r"queues\['mail'\]=1.5 must be a whole number"),
        ({"queues": {"mail": 0}}, r"queues\['mail'\]=0 must be at least 1"),
        ({"queue_order": "fair"}, "'fair' is neither 'rotate' nor 'strict'"),
        ({"processes": 0}, "processes=0 must be at least 1"),
        ({"threads": 1.5}, "threads=1.5 must be a whole number"),
        ({"max_tasks": True}, "max_tasks=True must be a whole number"),
        ({"encoders": "cbor"}, "args_encoder= or result_encoder="),
    ],
)
def test_an_argument_that_means_nothing_is_refused(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises((ValueError, TypeError), match=told):
        Worker(Stem("memory://"), **arguments)
