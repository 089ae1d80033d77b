"""Revocation and remote control over every pair of adapters."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from stem_core import Stem, TaskRevoked, Worker
from stem_core.shared import revocation
from stem_core.status import TaskState
from tests.acceptance.conftest import Pair


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def application(stem: Stem) -> tuple[Any, Any, list[str]]:
    events: list[str] = []

    @stem.task(name="quick")
    async def quick(n: int = 0) -> int:
        events.append(f"quick {n}")
        return n

    @stem.task(name="endless")
    async def endless() -> None:
        events.append("began")
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            events.append("cut")
            raise

    return quick, endless, events


async def test_a_waiting_task_is_revoked_and_never_runs(pair: Pair) -> None:
    stem = pair.make()
    quick, _, events = application(stem)
    async with stem:
        doomed, spared = await quick.enqueue(1), await quick.enqueue(2)
        await doomed.revoke()
        async with Worker(stem, wait=0.1):
            assert await spared.result(timeout=20) == 2
            with pytest.raises(TaskRevoked):
                await doomed.result(timeout=20)
        assert events == ["quick 2"]
        status = await doomed.status()
        assert (status.state, status.reason) == (TaskState.CANCELLED, "revoked")


async def test_a_running_task_is_stopped_with_terminate_only(pair: Pair) -> None:
    stem = pair.make()
    _, endless, events = application(stem)
    async with stem, Worker(stem, wait=0.1, drain_timeout=0.1):
        handle = await endless.enqueue()
        await until(lambda: events == ["began"])
        await handle.revoke(terminate=True)
        with pytest.raises(TaskRevoked):
            await handle.result(timeout=20)
        assert events == ["began", "cut"]


async def test_a_revocation_that_came_too_late_is_forgotten(pair: Pair) -> None:
    stem = pair.make()
    began, gate = asyncio.Event(), asyncio.Event()

    @stem.task(name="held")
    async def held() -> str:
        began.set()
        await gate.wait()
        return "done"

    async def kept() -> bool:
        return await stem.run(lambda wiring: revocation.read(wiring.backend, handle.id)) is not None

    async with stem, Worker(stem, wait=0.1):
        handle = await held.enqueue()
        await began.wait()
        assert await handle.revoke() is False  # a run goes on, unless it is to be terminated
        assert await kept()
        gate.set()
        assert await handle.result(timeout=20) == "done"
        await stem.control.pause("elsewhere")  # so the worker looks
        async with asyncio.timeout(20):
            while await kept():
                await asyncio.sleep(0.01)


async def test_a_revocation_survives_a_restart_of_the_producer(pair: Pair) -> None:
    if pair.name == "memory":
        pytest.skip("memory:// lives as long as its process uses it")
    first = pair.make()
    quick, _, _ = application(first)
    async with first:
        handle = await quick.with_options(countdown=0.2).enqueue(1)
        await handle.revoke()
    second = pair.make()
    _, _, events = application(second)
    async with second, Worker(second, wait=0.1):
        with pytest.raises(TaskRevoked):
            await second.handle(handle.id).result(timeout=20)
    assert events == []


async def test_a_paused_queue_stands_still_until_it_is_resumed(pair: Pair) -> None:
    stem = pair.make()
    quick, _, events = application(stem)
    async with stem:
        await stem.control.pause("default", reason="maintenance")
        async with Worker(stem, queues=["default", "other"], wait=0.1):
            held = await quick.enqueue(1)
            passed = await quick.with_options(queue="other").enqueue(2)
            assert await passed.result(timeout=20) == 2
            paused = await stem.control.paused()
            assert (list(paused), paused["default"].reason) == (["default"], "maintenance")
            assert events == ["quick 2"]
            assert await stem.control.resume("default")
            assert await held.result(timeout=20) == 1
            assert not await stem.control.resume("default")


async def test_workers_are_seen_asked_and_shut_down(pair: Pair) -> None:
    stem = pair.make()
    quick, endless, events = application(stem)
    async with stem:
        workers = [Worker(stem, wait=0.1, name=name, drain_timeout=0.1) for name in ("one", "two")]
        runs = [asyncio.create_task(worker.run()) for worker in workers]
        await until(lambda: all(worker.started for worker in workers))
        assert [each.id for each in await stem.control.workers()] == ["one", "two"]
        assert [(each.worker, each.answer) for each in await stem.control.ping()] == [
            ("one", "pong"),
            ("two", "pong"),
        ]
        await (await quick.enqueue(1)).result(timeout=20)
        handle = await endless.enqueue()
        await until(lambda: "began" in events)
        running = [task for each in await stem.control.inspect() for task in each.answer["running"]]
        assert [(task["id"], task["name"]) for task in running] == [(handle.id, "endless")]
        counts = await stem.control.stats()
        assert sum(each.answer["received"] for each in counts) == 2
        (only,) = await stem.control.shutdown("soft", workers=["one"])
        assert (only.worker, only.answer) == ("one", "soft")
        await asyncio.wait_for(runs[0], 20)
        await stem.control.shutdown("hard")
        await asyncio.wait_for(runs[1], 20)
        assert await stem.control.workers() == []
        assert (await stem.broker.stats("default")).leased == 0
