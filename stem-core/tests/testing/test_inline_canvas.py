"""Canvas, deadlines and shared limits in virtual time."""

from __future__ import annotations

from datetime import timedelta

import pytest

from stem_core import Canvas, Stem, TaskContext, TaskFailed, TaskRetryPolicy
from stem_core.testing import run_inline


async def test_a_chord_with_retries_of_an_hour_takes_no_time() -> None:
    stem = Stem("memory://")
    failures = {1: 2}

    @stem.task(max_retries=3, retry_policy=TaskRetryPolicy(default_delay=3600, jitter=False))
    async def part(n: int) -> int:
        if failures.get(n):
            failures[n] -= 1
            raise ConnectionError("not yet")
        return n

    @stem.task
    async def total(values: list[int]) -> int:
        return sum(values)

    async with run_inline(stem) as inline:
        began = inline.now
        handle = await Canvas(stem).chord([part.s(n) for n in range(4)], total.s())
        await inline.settle()
        assert (await handle.status()) is None
        await inline.advance(7200)
        assert await handle.result(timeout=5) == 6
        assert inline.now - began == timedelta(hours=2)


async def test_a_deadline_of_a_week_fails_what_waits() -> None:
    stem = Stem("memory://")

    @stem.task
    async def part(n: int) -> int:
        return n

    @stem.task
    async def total(values: list[int]) -> int:
        return sum(values)

    async with run_inline(stem) as inline:
        late = part.s(2).with_options(countdown=timedelta(days=30))
        handle = await Canvas(stem).chord([part.s(1), late], total.s(), deadline=timedelta(days=7))
        await inline.advance(timedelta(days=7))
        with pytest.raises(TaskFailed, match=rf"{handle.id}\.2"):
            await handle.result(timeout=5)


async def test_a_rate_of_two_an_hour_lets_two_pass_an_hour() -> None:
    stem = Stem("memory://")
    ran: list[timedelta] = []

    @stem.task(rate_limit="2/h")
    async def limited() -> None:
        ran.append(inline.now - began)

    async with run_inline(stem) as inline:
        began = inline.now
        await stem.enqueue_many([limited.call() for _ in range(5)])
        await inline.settle()
        assert len(ran) == 2
        await inline.advance(timedelta(hours=1))
        assert len(ran) == 4
        await inline.advance(timedelta(hours=1))
        assert len(ran) == 5
    assert ran[-1] <= timedelta(hours=2)


async def test_run_all_ends_with_the_graph_and_not_at_its_deadline() -> None:
    stem = Stem("memory://")

    @stem.task(max_retries=1, retry_policy=TaskRetryPolicy(default_delay=60, jitter=False))
    async def add(ctx: TaskContext, x: int, y: int) -> int:
        if ctx.attempt == 0:
            raise ConnectionError("not yet")
        return x + y

    canvas = Canvas(stem)
    async with run_inline(stem) as inline:
        began = inline.now
        chain = await canvas.chain([add.s(1, 2), add.s(3)])
        await inline.run_all()
        assert await chain.result(timeout=5) == 6
        assert inline.now - began == timedelta(minutes=2)
        group = await canvas.group([add.s(1, 2), add.s(3, 4).with_options(countdown=3600)])
        await inline.run_all()
        assert await group.result(timeout=5) == [3, 7]
        assert inline.now - began < timedelta(hours=2)


async def test_run_all_comes_to_the_deadline_of_what_waits() -> None:
    stem = Stem("memory://")
    ran: list[int] = []

    @stem.task
    async def part(n: int) -> int:
        ran.append(n)
        return n + 1

    async with run_inline(stem) as inline:
        late = part.s(1).with_options(countdown=timedelta(days=30))
        await Canvas(stem).chain([late, part.s()], deadline=timedelta(days=7))
        await inline.run_all()
        assert ran == [1]  # the second step had failed by then
