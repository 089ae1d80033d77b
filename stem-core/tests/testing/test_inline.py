"""``run_inline``: tasks run in the test's loop, and time is the test's."""

from __future__ import annotations

import asyncio
import itertools
import threading
from datetime import UTC, datetime, timedelta

import pytest

from stem_core import Stem, TaskContext, TaskFailed, TaskRetryPolicy
from stem_core.testing import run_inline

YEAR = 365 * 86_400.0


def shop() -> Stem:
    # Never connected to: nothing listens on port 1.
    return Stem("redis://localhost:1/0", namespace="shop")


async def test_async_tasks_run_in_the_tests_own_loop_and_sync_ones_in_threads() -> None:
    stem = shop()

    @stem.task
    async def here() -> bool:
        return asyncio.get_running_loop() is loop and threading.current_thread() is threading.main_thread()

    @stem.task
    def there() -> bool:
        return threading.current_thread() is not threading.main_thread()

    loop = asyncio.get_running_loop()
    async with run_inline(stem):
        assert await (await here.enqueue()).result(timeout=10)
        assert await (await there.enqueue()).result(timeout=10)


async def test_delays_pass_when_the_test_says_so_each_at_its_time() -> None:
    stem = shop()
    ran: list[tuple[str, datetime]] = []

    @stem.task
    async def note(what: str) -> None:
        ran.append((what, inline.now))

    start = datetime(2030, 1, 1, tzinfo=UTC)
    async with run_inline(stem, start=start) as inline:
        await note.with_options(countdown=YEAR).enqueue("year")
        await note.with_options(countdown=60).enqueue("minute")
        await note.enqueue("now")
        await inline.settle()
        assert ran == [("now", start)]
        await inline.advance(59.9)
        assert len(ran) == 1
        await inline.advance(timedelta(days=400))
        assert ran[1:] == [
            ("minute", start + timedelta(seconds=60)),
            ("year", start + timedelta(seconds=YEAR)),
        ]
        assert inline.now == start + timedelta(days=400, seconds=59.9)


@pytest.mark.parametrize("start", [0.123456789, 1.9999996, 1e-7, 0.3])
async def test_what_is_due_at_the_very_end_runs(start: float) -> None:
    stem = shop()

    @stem.task
    async def note() -> None: ...

    async with run_inline(stem, start=datetime.fromtimestamp(1.8e9, UTC)) as inline:
        inline.clock.advance(start)
        for delay in (3600, 0.1, 1 / 3, 59.9):
            handle = await note.with_options(countdown=delay).enqueue()
            await inline.advance(delay)
            status = await handle.status()
            assert status is not None
            assert status.state == "succeeded", delay


async def test_retries_with_hours_of_backoff_take_no_time() -> None:
    stem = shop()
    attempts = []

    @stem.task(max_retries=5, retry_policy=TaskRetryPolicy(backoff=True, default_delay=3600, jitter=False))
    def flaky(ctx: TaskContext) -> str:
        attempts.append(inline.now)
        if ctx.attempt < 3:
            raise ConnectionError("not yet")
        return "at last"

    async with run_inline(stem) as inline:
        handle = await flaky.enqueue()
        await inline.run_all()
        assert await handle.result(timeout=10) == "at last"
    waits = [later - earlier for earlier, later in itertools.pairwise(attempts)]
    assert waits == [timedelta(hours=1), timedelta(hours=2), timedelta(hours=4)]


async def test_every_queue_is_consumed_and_links_run_too() -> None:
    stem = shop()

    @stem.task(queue="first")
    async def double(x: int) -> int:
        return 2 * x

    seen: list[int] = []

    @stem.task(queue="second")
    async def keep(x: int) -> None:
        seen.append(x)

    async with run_inline(stem) as inline:
        await double.with_options(queue="somewhere else", link=keep.s()).enqueue(21)
        await inline.settle()
    assert seen == [42]


async def test_failures_are_results_and_dead_letters() -> None:
    stem = shop()

    @stem.task
    async def broken() -> None:
        raise ValueError("as it should")

    async with run_inline(stem) as inline:
        handle = await broken.enqueue()
        await inline.settle()
        with pytest.raises(TaskFailed, match="as it should"):
            await handle.result(timeout=10)
        (dead,) = (await stem.dead_letters.list()).items
        assert dead.reason == "max-retries-exhausted"


async def test_resources_are_made_and_freed() -> None:
    stem = shop()
    freed = []

    def make(state: dict[str, object]) -> None:
        state["pool"] = "a pool"

    @stem.task
    async def use(ctx: TaskContext) -> object:
        return ctx.state["pool"]

    async with run_inline(stem, on_startup=[make], on_shutdown=[freed.append]):
        assert await (await use.enqueue()).result(timeout=10) == "a pool"
    assert freed == [{"pool": "a pool"}]


async def test_something_that_never_ends_is_an_error() -> None:
    stem = shop()

    @stem.task
    async def again() -> None:
        await again.with_options(countdown=1).enqueue()

    async with run_inline(stem) as inline:
        await again.enqueue()
        with pytest.raises(AssertionError, match="jumps"):
            await inline.run_all(jumps=50)


async def test_leaving_waits_for_no_receive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stem_core.worker.consumer._LAST_RECEIVE", 3600.0)
    stem = Stem("memory://")
    task = stem.task(name="task")(lambda: 7)
    async with asyncio.timeout(20):
        async with run_inline(stem, wait=3600) as inline:
            handle = await task.enqueue()
            await inline.settle()
            assert await handle.result(timeout=5) == 7
        async with run_inline(stem, wait=3600):
            pass
