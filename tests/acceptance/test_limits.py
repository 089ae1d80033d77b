"""Shared rates, shared places and unique tasks over every pair of adapters."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from stem_core import TaskContext, TaskEnqueueOptions, Worker
from stem_core.envelope import Envelope, Limits
from stem_core.shared.concurrency import ConcurrencySlots
from stem_core.shared.limits import RateLimits
from tests.acceptance.conftest import Pair


async def test_a_rate_is_shared_by_all_workers_and_costs_no_attempt(pair: Pair) -> None:
    stem = pair.make()
    started: list[tuple[float, int]] = []

    @stem.task(name="limited", rate_limit="5/s")
    async def limited(ctx: TaskContext) -> None:
        started.append((time.monotonic(), ctx.attempt))

    async with stem, Worker(stem, wait=0.1), Worker(stem, wait=0.1):
        handles = await stem.enqueue_many([limited.call() for _ in range(15)])
        await asyncio.gather(*(handle.result(timeout=30) for handle in handles))
    times = [at for at, _ in started]
    # Burst and rate are 5: of 15 starts the eleventh is at least one second after the first.
    assert times[10] - times[0] > 0.9
    assert {attempt for _, attempt in started} == {0}


async def test_a_group_rate_is_by_the_header(pair: Pair) -> None:
    stem = pair.make()
    done: list[str] = []

    @stem.task(name="per_tenant", group_rate_limit="2/h")
    async def per_tenant(ctx: TaskContext) -> None:
        done.append(ctx.headers["tenant"])

    async with stem, Worker(stem, wait=0.1):
        calls = [per_tenant.call().with_headers({"tenant": tenant}) for tenant in "aaabb"]
        handles = await stem.enqueue_many(calls)
        await asyncio.gather(*(handles[n].result(timeout=20) for n in (3, 4)))
        async with asyncio.timeout(20):
            while len(done) < 4:
                await asyncio.sleep(0.02)
    assert sorted(done) == ["a", "a", "b", "b"]


async def test_no_more_run_at_once_than_there_are_places(pair: Pair) -> None:
    stem = pair.make()
    running = most = 0

    @stem.task(name="narrow", max_concurrency=2, concurrency_key="printer")
    async def narrow() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.05)
        running -= 1

    async with stem, Worker(stem, wait=0.1), Worker(stem, wait=0.1):
        handles = await stem.enqueue_many([narrow.call() for _ in range(10)])
        await asyncio.gather(*(handle.result(timeout=30) for handle in handles))
    assert most == 2


async def test_a_crash_frees_its_place_when_the_lease_ends(pair: Pair) -> None:
    stem = pair.make()

    @stem.task(name="narrow", max_concurrency=1)
    async def narrow() -> str:
        return "ran"

    async with stem:
        slots = ConcurrencySlots(stem.backend, "a worker that died")
        assert await slots.take("narrow", 1, lease=1.0) is not None
        assert await slots.take("narrow", 1, lease=1.0) is None
        async with Worker(stem, wait=0.1):
            assert await (await narrow.enqueue()).result(timeout=20) == "ran"


async def test_a_unique_task_is_enqueued_once_until_it_has_ended(pair: Pair) -> None:
    stem = pair.make()
    ran: list[Any] = []

    @stem.task(name="report", unique=True)
    async def report(day: str) -> str:
        ran.append(day)
        return day

    async with stem:
        first = await report.enqueue("monday")
        again = await report.enqueue("monday")
        other = await report.enqueue("tuesday")
        assert (first.deduplicated, again.deduplicated, again.id == first.id) == (False, True, True)
        assert other.id != first.id
        async with Worker(stem, wait=0.1):
            assert await again.result(timeout=20) == "monday"
            await other.result(timeout=20)
            later = await report.enqueue("monday")
            assert not later.deduplicated
            await later.result(timeout=20)
        assert sorted(ran) == ["monday", "monday", "tuesday"]
        assert await stem.backend.state_scan("unique:") in ([], ())


@pytest.mark.parametrize("name", ["sqlite", "redis", "postgres"])
async def test_takers_of_four_processes_never_get_more_than_the_limit_and_its_burst(
    name: str, pair_of: Callable[[str], Pair]
) -> None:
    pair = pair_of(name)
    script = Path(__file__).parent / "takers.py"
    arguments = [pair.broker, pair.backend, pair.namespace, "shared", "1.5", "13"]
    async with pair.make():  # the store is there before four processes ask for it
        pass
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, str(script), *arguments, stdout=PIPE)
        for _ in range(4)
    ]
    answers = [json.loads((await process.communicate())[0]) for process in processes]
    granted = sum(each["granted"] for each in answers)
    elapsed = max(each["ended"] for each in answers) - min(each["began"] for each in answers)
    # 50/s with a burst of 50: whatever the window, burst + rate x its length.
    assert 50 <= granted <= 50 + 50 * elapsed + 1


#: What a header or a key may hold that some store has in no text, or in no index.
ODD = ("a\x00b", "a\nb", "{x}:*", "é" * 20_000, "\U0001f600")


async def test_limits_hold_whatever_the_key_is_made_of(pair: Pair) -> None:
    async with pair.make() as stem:
        assert stem.backend is not None
        rates, slots = RateLimits(stem.backend), ConcurrencySlots(stem.backend, "one")
        for odd in ODD:
            limits = Limits(group_rate_limit="1/d", group_rate_key=odd)
            envelope = Envelope(
                id="x",
                name="t",
                queue="q",
                args=b"",
                encoder="json",
                enqueued_at=datetime.now(UTC),
                limits=limits,
            )
            answers = [(await rates.ask(envelope)).granted for _ in range(2)]
            assert answers == [True, False], odd
            taken = await slots.take(odd, 1, 60.0)
            assert taken is not None
            assert await slots.take(odd, 1, 60.0) is None, odd
            await slots.give_back(taken)
            assert await slots.take(odd, 1, 60.0) is not None, odd


async def test_what_is_scheduled_for_the_end_of_time_is_kept(pair: Pair) -> None:
    async with pair.make() as stem:
        for eta in (datetime.max.replace(tzinfo=UTC), datetime(2400, 1, 1, tzinfo=UTC)):
            handle = await stem.enqueue("late", enqueue_options=TaskEnqueueOptions(eta=eta))
            status = await handle.status()
            assert status is not None
            assert status.state == "queued"
        assert (await stem.broker.stats("default")).scheduled == 2
