"""Leases are kept while a task runs, and a lost one ends the run without a trace."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from stem_core import Stem, TaskContext
from stem_core.errors import AdapterError, LeaseLost
from stem_core.status import TaskState
from stem_core.worker import Worker


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/stem.db"


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_a_task_of_three_leases_length_runs_once(url: str, kind: str) -> None:
    runs: list[int] = []

    def declare(stem: Stem) -> Any:
        if kind == "async":

            @stem.task(name="long")
            async def long() -> str:
                runs.append(1)
                await asyncio.sleep(1.8)
                return "done"
        else:

            @stem.task(name="long")
            def long() -> str:
                runs.append(1)
                time.sleep(1.8)
                return "done"

        return long

    first, second = Stem(url), Stem(url)
    task = declare(first)
    declare(second)
    async with first, second, Worker(first, lease=0.6) as one, Worker(second, lease=0.6) as two:
        assert await (await task.enqueue()).result(timeout=20) == "done"
        assert one.stats.leases_lost + two.stats.leases_lost == 0
    assert len(runs) == 1


async def test_a_thread_that_holds_the_gil_does_not_lose_its_lease(url: str) -> None:
    runs: list[int] = []

    def declare(stem: Stem) -> Any:
        @stem.task(name="greedy")
        def greedy() -> str:
            runs.append(1)
            # PyDLL keeps the GIL: for 2.5 s no other thread of this process runs, the loop's included.
            ctypes.PyDLL(None).usleep(2_500_000)
            return "done"

        return greedy

    stem = Stem(url)
    task = declare(stem)
    async with stem, Worker(stem, lease=6) as worker:
        assert await (await task.enqueue()).result(timeout=20) == "done"
        assert worker.stats.leases_lost == 0
    assert len(runs) == 1


async def test_a_blocked_loop_is_reported_with_the_stack_of_the_culprit(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stem = Stem("memory://")

    @stem.task
    async def thoughtless_handler() -> None:
        time.sleep(1.8)  # noqa: ASYNC251 - what must not be done

    with caplog.at_level(logging.ERROR, logger="stem.worker"):
        async with stem, Worker(stem, lease=3) as worker:
            await (await thoughtless_handler.enqueue()).result(timeout=5)
            assert worker.stats.blocked_loop == 1
            assert worker.healthy()
    assert "thoughtless_handler" in caplog.text
    assert "time.sleep(1.8)" in caplog.text


class Losing:
    """A broker that says every lease is lost as soon as it is told to."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.losing = False
        self.failing = False
        self.extended: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def join(self, backend: Any) -> Any:
        return self.inner.join(backend)

    async def extend(self, receipts: Sequence[str], lease: float) -> Sequence[bool]:
        if self.failing:
            raise AdapterError("out of reach")
        self.extended.append(lease)
        answers = await self.inner.extend(receipts, lease)
        return [False] * len(receipts) if self.losing else answers


def losing_stem() -> tuple[Stem, Losing]:
    stem = Stem("memory://")
    broker = Losing(stem.broker)
    stem.wiring.broker = broker  # type: ignore[assignment]
    return stem, broker


@pytest.mark.parametrize("how", ["losing", "failing"])
async def test_a_lost_lease_cancels_the_task_and_records_nothing(how: str) -> None:
    stem, broker = losing_stem()
    cancelled = asyncio.Event()

    @stem.task
    async def long() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return "done"

    async with stem, Worker(stem, lease=0.6) as worker:
        handle = await long.enqueue()
        while worker.stats.running == 0:
            await asyncio.sleep(0.005)
        setattr(broker, how, True)
        await asyncio.wait_for(cancelled.wait(), 10)
        while worker.stats.running:
            await asyncio.sleep(0.005)
        assert worker.stats.leases_lost == 1
        status = await handle.status()
        assert status is not None
        assert not status.terminal
        worker.stop(hurry=True)


async def test_a_thread_whose_lease_is_lost_is_told(caplog: pytest.LogCaptureFixture) -> None:
    stem, broker = losing_stem()
    ended = threading.Event()

    @stem.task
    def long() -> None:
        try:
            while True:
                time.sleep(0.01)
        finally:
            ended.set()

    async with stem, Worker(stem, lease=0.6) as worker:
        await long.enqueue()
        while worker.stats.running == 0:
            await asyncio.sleep(0.005)
        broker.losing = True
        assert await asyncio.to_thread(ended.wait, 10)
        worker.stop(hurry=True)


async def test_heartbeat_and_extend_lease_tell_of_a_lost_lease() -> None:
    stem, broker = losing_stem()
    seen: list[str] = []

    @stem.task
    async def careful(ctx: TaskContext) -> None:
        broker.losing = True
        try:
            await ctx.extend_lease(600)
        except LeaseLost as error:
            seen.append(str(error))

    async with stem, Worker(stem):
        await careful.enqueue()
        while not seen:
            await asyncio.sleep(0.005)
    assert "another worker may run it" in seen[0]


async def test_a_task_s_own_lease_is_set_at_receipt_and_never_shortened_later() -> None:
    stem, broker = losing_stem()
    gate = asyncio.Event()

    @stem.task(visibility_timeout=0.3)
    async def short() -> str:
        await gate.wait()
        return "done"

    @stem.task
    async def extended(ctx: TaskContext) -> float:
        await ctx.extend_lease(900)
        await ctx.heartbeat()  # asks for 30 s, which the 900 s cover
        return 1.0

    async with stem, Worker(stem, lease=30) as worker:
        handle = await short.enqueue()
        while len(broker.extended) < 3:
            await asyncio.sleep(0.01)
        gate.set()
        assert await handle.result(timeout=5) == "done"
        assert set(broker.extended) == {0.3}
        broker.extended.clear()
        await (await extended.enqueue()).result(timeout=5)
        assert broker.extended == [900.0]
        assert worker.stats.leases_lost == 0


async def test_a_delayed_task_never_starts_early(url: str) -> None:
    stem = Stem(url)
    started: list[float] = []

    @stem.task
    async def later() -> None:
        started.append(time.time())

    async with stem, Worker(stem):
        due = time.time()
        handles = [await later.with_options(countdown=0.2 + n / 20).enqueue() for n in range(10)]
        for handle in handles:
            await handle.result(timeout=10)
    for n, at in enumerate(sorted(started)):
        assert at >= due + 0.2 + n / 20


async def test_a_retry_of_another_worker_s_task_is_read_back(url: str) -> None:
    """Results, errors and meta are read back by another Stem on the same store."""
    writer, reader = Stem(url), Stem(url)

    @writer.task
    async def good() -> dict[str, int]:
        return {"answer": 42}

    @writer.task
    async def bad() -> None:
        raise KeyError("nothing here")

    async with writer, reader, Worker(writer):
        first = await writer.enqueue(good.name, meta={"by": "me"})
        second = await bad.enqueue()
        assert await reader.handle(first.id).result(timeout=10) == {"answer": 42}
        status = await reader.handle(first.id).status()
        assert status is not None
        assert status.meta["by"] == "me"
        assert status.meta["__stemResultEncoder"] == "json"
        assert reader.backend is not None
        failed = await reader.backend.wait(second.id, 10)
        assert failed is not None
        assert failed.state is TaskState.FAILED
        assert failed.error is not None
        assert failed.error.type == "KeyError"
