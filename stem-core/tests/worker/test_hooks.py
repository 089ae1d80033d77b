"""What plugins see of a worker, and what of theirs can go wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import pytest

from stem_core import Stem, TaskContext, TaskFailed, hookimpl
from stem_core.worker import Worker


class Watcher:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.seconds: list[float | None] = []

    @hookimpl
    def stem_worker_started(self, worker_id: str, queues: tuple[str, ...]) -> None:
        self.told.append(("worker started", queues))

    @hookimpl
    def stem_worker_stopped(self, worker_id: str) -> None:
        self.told.append(("worker stopped",))

    @hookimpl
    def stem_task_received(self, envelope: Any, attempt: int) -> None:
        self.told.append(("received", envelope.name, attempt))

    @hookimpl
    def stem_task_started(self, envelope: Any, attempt: int) -> None:
        self.told.append(("started", envelope.name, attempt))

    @hookimpl
    def stem_task_succeeded(self, envelope: Any, attempt: int, seconds: float) -> None:
        assert 0 <= seconds < 60
        self.told.append(("succeeded", envelope.name, attempt))

    @hookimpl
    def stem_task_failed(self, envelope: Any, attempt: int, error: Any, seconds: float | None) -> None:
        self.seconds.append(seconds)
        self.told.append(("failed", envelope.name, attempt, error.message))

    @hookimpl
    def stem_task_retried(
        self, envelope: Any, attempt: int, error: Any, delay: float, seconds: float | None
    ) -> None:
        self.seconds.append(seconds)
        self.told.append(("retried", envelope.name, attempt, error.message, delay))

    @hookimpl
    def stem_task_dead_lettered(self, id: str, queue: str, reason: str) -> None:
        self.told.append(("dead-lettered", queue, reason))


async def test_a_plugin_sees_the_way_of_every_task() -> None:
    watcher = Watcher()
    stem = Stem("memory://", plugins=[watcher])

    @stem.task(name="good")
    async def good() -> None: ...

    @stem.task(name="bad", max_retries=1)
    async def bad() -> None:
        raise ValueError("no")

    async with stem:
        await good.enqueue()
        await Worker(stem).run(until_empty=True)
        assert watcher.told == [
            ("worker started", ("default",)),
            ("received", "good", 0),
            ("started", "good", 0),
            ("succeeded", "good", 0),
            ("worker stopped",),
        ]
        watcher.told.clear()
        await bad.enqueue()
        await Worker(stem).run(until_empty=True)
        assert watcher.told[1:-1] == [
            ("received", "bad", 0),
            ("started", "bad", 0),
            ("retried", "bad", 0, "no", 0.0),
            ("received", "bad", 1),
            ("started", "bad", 1),
            ("failed", "bad", 1, "no"),
            ("dead-lettered", "default", "max-retries-exhausted"),
        ]


async def test_a_plugin_sees_how_long_a_failure_took_if_there_was_a_run() -> None:
    watcher = Watcher()
    stem = Stem("memory://", plugins=[watcher])

    @stem.task(name="slow", max_retries=1)
    async def slow() -> None:
        await asyncio.sleep(0.02)
        raise ValueError("no")

    @stem.task(name="thread")
    def thread() -> None:
        time.sleep(0.02)
        raise ValueError("no")

    @stem.task(name="large", result_encoder="json")
    async def large() -> object:
        await asyncio.sleep(0.02)
        return object()

    async with stem:
        for call, spent in (
            (slow.call(), [True, True]),
            (thread.call(), [True]),
            (large.call(), [True]),
        ):
            watcher.seconds.clear()
            await stem.enqueue_call(call)
            await Worker(stem).run(until_empty=True)
            assert [each is not None and 0.02 <= each < 60 for each in watcher.seconds] == spent
        watcher.seconds.clear()
        await stem.enqueue("unheard of")
        await Worker(stem, unknown_task_grace=0).run(until_empty=True)
        assert watcher.seconds == [None]


class Raising:
    """Every hook of it raises."""

    @hookimpl
    def stem_task_received(self) -> None:
        raise RuntimeError("received")

    @hookimpl
    def stem_task_started(self) -> None:
        raise RuntimeError("started")

    @hookimpl
    def stem_task_succeeded(self) -> None:
        raise RuntimeError("succeeded")

    @hookimpl
    def stem_task_scope(self, context: Any) -> Any:
        raise RuntimeError("scope")


tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


class Scopes:
    """Sets a context variable around every handler."""

    def __init__(self, fault: str = "") -> None:
        self.fault = fault
        self.seen: list[str] = []

    @hookimpl
    def stem_task_scope(self, context: TaskContext) -> Any:
        return self._scope(context)

    @asynccontextmanager
    async def _scope(self, context: TaskContext) -> AsyncIterator[None]:
        if self.fault == "enter":
            raise RuntimeError("enter")
        tenant.set(context.headers.get("tenant", "none"))
        self.seen.append("entered")
        try:
            yield
        except Exception as error:
            self.seen.append(type(error).__name__)
            raise
        self.seen.append("left")
        if self.fault == "exit":
            raise RuntimeError("exit")


async def test_hooks_that_raise_change_nothing(caplog: pytest.LogCaptureFixture) -> None:
    stem = Stem("memory://", plugins=[Raising(), Scopes("enter"), Scopes("exit")])

    @stem.task
    async def good() -> str:
        return "done"

    async with stem:
        handle = await good.enqueue()
        worker = Worker(stem)
        await worker.run(until_empty=True)
        assert await handle.result(timeout=1) == "done"
        assert worker.stats.succeeded == 1
    for word in ("received", "started", "succeeded", "scope", "enter", "exit"):
        assert f"RuntimeError: {word}" in caplog.text


async def test_a_scope_surrounds_the_handler_wherever_it_runs() -> None:
    scopes = Scopes()
    stem = Stem("memory://", plugins=[scopes])

    @stem.task
    async def on_the_loop() -> str:
        return tenant.get()

    @stem.task
    def in_a_thread() -> str:
        return tenant.get()

    @stem.task
    async def bad() -> None:
        raise LookupError

    async with stem:
        for task in (on_the_loop, in_a_thread):
            handle = await stem.enqueue(task.name, headers={"tenant": "acme"})
            await Worker(stem).run(until_empty=True)
            assert await handle.result(timeout=1) == "acme"
            assert scopes.seen == ["entered", "left"]
            scopes.seen.clear()
        failing = await bad.enqueue()
        await Worker(stem).run(until_empty=True)
        with pytest.raises(TaskFailed, match="LookupError"):
            await failing.result(timeout=1)
        assert scopes.seen == ["entered", "LookupError"]
    assert tenant.get() == "nobody"
