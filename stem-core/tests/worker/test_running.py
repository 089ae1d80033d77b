"""What a worker does with async and sync tasks: results, failures, retries, contexts, states."""

from __future__ import annotations

import asyncio
import threading

import pytest

from stem_core import Stem, TaskContext, TaskFailed, TaskRetryPolicy, current_task
from stem_core.app import StemApp
from stem_core.status import TaskState
from stem_core.worker import Worker


async def test_async_and_sync_tasks_give_their_results() -> None:
    stem = Stem("memory://")

    @stem.task
    async def add(x: int, y: int) -> int:
        return x + y

    @stem.task
    def where(word: str) -> list[str]:
        return [word, threading.current_thread().name]

    async with stem, Worker(stem):
        assert await (await add.enqueue(1, y=2)).result(timeout=5) == 3
        word, thread = await (await where.enqueue("here")).result(timeout=5)
        assert word == "here"
        assert thread != threading.current_thread().name


async def test_an_app_runs_the_tasks_of_another_stem() -> None:
    elsewhere = Stem("memory://")

    @elsewhere.task
    async def add(x: int, y: int) -> int:
        return x + y

    async with StemApp.in_memory(tasks=[add]) as app:
        assert elsewhere.wiring is app.wiring
        assert await (await add.enqueue(1, 2)).result(timeout=5) == 3
    assert elsewhere.wiring is not app.wiring


async def test_a_failure_is_recorded_with_its_error_and_put_aside() -> None:
    stem = Stem("memory://")

    @stem.task
    async def bad() -> None:
        raise ValueError("no good")

    async with stem:
        handle = await bad.enqueue()
        await Worker(stem).run(until_empty=True)
        with pytest.raises(TaskFailed, match="ValueError: no good") as caught:
            await handle.result(timeout=1)
        assert "in bad" in caught.value.traceback
        assert "stem_core/worker" not in caught.value.traceback
        (dead,) = (await stem.broker.dead_list("default")).items
        assert dead.reason == "max-retries-exhausted"
        assert dead.message.id == handle.id


async def test_a_failed_run_is_retried_until_it_works() -> None:
    stem = Stem("memory://")
    attempts: list[int] = []

    @stem.task(max_retries=3)
    async def flaky(ctx: TaskContext) -> int:
        attempts.append(ctx.attempt)
        if ctx.attempt < 2:
            raise ValueError(ctx.attempt)
        return ctx.attempt

    async with stem:
        handle = await flaky.enqueue()
        await Worker(stem).run(until_empty=True)
        assert await handle.result(timeout=1) == 2
        assert attempts == [0, 1, 2]
        status = await handle.status()
        assert status is not None
        assert status.attempt == 2
        assert status.started_at is not None
        assert status.finished_at is not None
        assert status.started_at <= status.finished_at


async def test_ctx_retry_shapes_the_delay_and_fails_past_the_limit() -> None:
    stem = Stem("memory://")
    seen: list[int] = []

    @stem.task(max_retries=1, retry_policy=TaskRetryPolicy(default_delay=3600))
    async def again(ctx: TaskContext) -> None:
        seen.append(ctx.attempt)
        raise ctx.retry(countdown=0.01)

    async with stem:
        handle = await again.enqueue()
        worker = Worker(stem)
        await worker.run(until_empty=True)
        assert seen == [0, 1]
        status = await handle.status()
        assert status is not None
        assert (status.state, status.reason) == (TaskState.FAILED, "max-retries-exhausted")
        assert worker.stats.retried == 1


@pytest.mark.parametrize(
    ("policy", "runs", "reason"),
    [
        (TaskRetryPolicy(dont_auto_retry_for=(LookupError,)), 1, "rejected"),
        (TaskRetryPolicy(auto_retry_for=(LookupError,)), 3, "max-retries-exhausted"),
        (TaskRetryPolicy(auto_retry_for=("ValueError",)), 1, "rejected"),
        (TaskRetryPolicy(max_retries=0), 1, "max-retries-exhausted"),
    ],
)
async def test_the_policy_decides_what_is_retried(policy: TaskRetryPolicy, runs: int, reason: str) -> None:
    stem = Stem("memory://")
    count = 0

    @stem.task(max_retries=2, retry_policy=policy)
    async def broken() -> None:
        nonlocal count
        count += 1
        raise KeyError("k")

    async with stem:
        handle = await broken.enqueue()
        await Worker(stem).run(until_empty=True)
        status = await handle.status()
        assert status is not None
        assert (count, status.reason) == (runs, reason)


async def test_each_run_has_its_own_contextvars_and_current_task() -> None:
    stem = Stem("memory://")
    gate = asyncio.Event()

    @stem.task
    async def which(word: str) -> list[str]:
        await gate.wait()
        context = current_task()
        assert context is not None
        return [word, context.id]

    @stem.task
    def in_thread() -> str:
        context = current_task()
        assert context is not None
        return context.id

    async with stem, Worker(stem):
        handles = [await which.enqueue(word) for word in "abc"]
        gate.set()
        for word, handle in zip("abc", handles, strict=True):
            assert await handle.result(timeout=5) == [word, handle.id]
        handle = await in_thread.enqueue()
        assert await handle.result(timeout=5) == handle.id
    assert current_task() is None


async def test_state_is_made_before_and_freed_after() -> None:
    stem = Stem("memory://")
    order: list[str] = []

    async def make(state: dict[str, object]) -> None:
        order.append("made")
        state["pool"] = "a pool"

    def free(state: dict[str, object]) -> None:
        order.append("freed")

    @stem.task
    async def use(ctx: TaskContext) -> object:
        order.append("used")
        return ctx.state["pool"]

    async with stem:
        handle = await use.enqueue()
        await Worker(stem, on_startup=[make], on_shutdown=[free]).run(until_empty=True)
        assert await handle.result(timeout=1) == "a pool"
    assert order == ["made", "used", "freed"]


async def test_progress_enqueue_and_lease_from_a_task() -> None:
    stem = Stem("memory://")

    @stem.task
    async def child() -> str:
        return "child"

    @stem.task
    async def parent(ctx: TaskContext) -> str:
        await ctx.progress(40, {"step": 2})
        await ctx.heartbeat()
        await ctx.extend_lease(120)
        return (await ctx.enqueue(child.call())).id

    @stem.task
    def sync_parent(ctx: TaskContext) -> str:
        ctx.progress_sync(50)
        ctx.heartbeat_sync()
        ctx.extend_lease_sync(120)
        return ctx.enqueue_sync(child.call()).id

    async with stem, Worker(stem):
        for task in (parent, sync_parent):
            handle = await task.enqueue()
            id = await handle.result(timeout=5)
            assert await stem.handle(id).result(timeout=5) == "child"
            status = await stem.handle(id).status()
            assert status is not None
            assert status.meta["stem.parentTaskId"] == handle.id
            about = await handle.status()
            assert about is not None
            assert about.progress is not None
            assert about.progress.percent in (40, 50)


async def test_a_long_run_is_recorded_as_running() -> None:
    stem = Stem("memory://")
    gate = asyncio.Event()

    @stem.task
    async def long() -> None:
        await gate.wait()

    async with stem, Worker(stem) as worker:
        handle = await long.enqueue()
        while (status := await handle.status()) is None or status.state is TaskState.QUEUED:
            await asyncio.sleep(0.005)
        assert status.state is TaskState.RUNNING
        assert worker.stats.running == 1
        gate.set()
        assert await handle.result(timeout=5) is None
