"""Handles: status, result, and calling a task off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from stem_core import (
    Canvas,
    ConfigurationError,
    Stem,
    TaskDefinition,
    TaskEnqueueOptions,
    TaskFailed,
    TaskOptions,
    TaskRevoked,
    TaskState,
    TaskTimeout,
    UnsupportedCapability,
    Worker,
)
from stem_core.handles import result_of
from stem_core.ports.backend import Callback
from stem_core.ports.encoder import EncodeContext
from stem_core.publishing import callback_of
from stem_core.shared import revocation
from stem_core.signature import Signature
from stem_core.status import StatusUpdate, TaskError


@dataclass
class Point:
    x: int
    y: int


async def record(stem: Stem, id: str, state: TaskState, value: Any = None, **fields: Any) -> None:
    if state is TaskState.SUCCEEDED:
        context = EncodeContext(purpose="result", namespace=stem.namespace, id=id, chain="json")
        fields |= {"payload": stem.encoders.encode("json", value, context), "encoder": "json"}
    assert stem.backend is not None
    assert await stem.backend.record([StatusUpdate(id=id, state=state, **fields)]) == [True]


@pytest.fixture(params=["async", "sync"])
def ask(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Call a handle's method, or its sync twin from a thread."""

    async def call(handle: Any, name: str, **arguments: Any) -> Any:
        if request.param == "async":
            return await getattr(handle, name)(**arguments)
        return await asyncio.to_thread(getattr(handle, f"{name}_sync"), **arguments)

    return call


async def test_a_result_has_the_annotated_type(stem: Stem, ask: Any) -> None:
    @stem.task
    async def point(x: int) -> Point:
        return Point(x, x)

    handle = await point.enqueue(1)
    await record(stem, handle.id, TaskState.SUCCEEDED, Point(1, 2))
    assert await ask(handle, "result", timeout=5) == Point(1, 2)
    assert await ask(stem.handle(handle.id, result=Point), "result") == Point(1, 2)
    assert await ask(stem.handle(handle.id), "result") == {"x": 1, "y": 2}
    assert (await ask(handle, "status")).state is TaskState.SUCCEEDED


async def test_a_result_is_waited_for(stem: Stem) -> None:
    handle = await stem.enqueue("a")
    waiting = asyncio.create_task(handle.result(timeout=30))
    await asyncio.sleep(0)
    await record(stem, handle.id, TaskState.SUCCEEDED, 7)
    assert await waiting == 7


async def test_failure_carries_the_remote_error(stem: Stem, ask: Any) -> None:
    handle = await stem.enqueue("a")
    await record(
        stem, handle.id, TaskState.FAILED, error=TaskError("shop.Broke", "no money", "Traceback ...")
    )
    with pytest.raises(TaskFailed, match=r"shop\.Broke: no money") as caught:
        await ask(handle, "result", timeout=5)
    assert caught.value.traceback == "Traceback ..."


async def test_cancelled_and_not_finished(stem: Stem, ask: Any) -> None:
    handle = await stem.enqueue("a")
    with pytest.raises(TaskTimeout, match="within 0 s: it is queued; does a worker consume 'default'"):
        await ask(handle, "result", timeout=0)
    await record(stem, handle.id, TaskState.RUNNING)
    with pytest.raises(TaskTimeout, match="within 0 s: it is running"):
        await ask(handle, "result", timeout=0)
    with pytest.raises(TaskTimeout, match="nothing is recorded of it"):
        await ask(stem.handle("another"), "result", timeout=0)
    await record(stem, handle.id, TaskState.CANCELLED, reason="expired")
    with pytest.raises(TaskRevoked, match="expired"):
        await ask(handle, "result", timeout=5)


async def test_an_ignored_result_is_none_even_if_something_is_stored(stem: Stem, ask: Any) -> None:
    handle = await stem.enqueue("a", enqueue_options=TaskEnqueueOptions(ignore_result=True))
    await record(stem, handle.id, TaskState.SUCCEEDED, 7)
    assert await ask(handle, "result", timeout=5) is None
    assert await ask(stem.handle(handle.id), "result", timeout=5) is None
    assert result_of(stem.wiring, await handle.status()).value == 7  # what comes after the task sees it


async def test_without_a_backend_nothing_is_known() -> None:
    async with Stem("memory://", backend=False) as stem:
        handle = await stem.enqueue("a")
        for asked in (handle.status(), handle.result(timeout=1), handle.revoke()):
            with pytest.raises(ConfigurationError, match="backend"):
                await asked


async def test_an_unknown_task_has_no_status(stem: Stem, ask: Any) -> None:
    assert await ask(stem.handle("nobody"), "status") is None


async def test_a_waiting_task_is_withdrawn_and_recorded(stem: Stem, ask: Any) -> None:
    for countdown in (0, 60):
        handle = await stem.enqueue(
            "a", enqueue_options=TaskEnqueueOptions(countdown=countdown), meta={"k": 1}
        )
        assert await ask(handle, "revoke") is True
        stats = await stem.broker.stats("default")
        assert stats.ready == stats.scheduled == 0
        status = await handle.status()
        assert status is not None
        assert (status.state, status.reason, status.meta) == (TaskState.CANCELLED, "revoked", {"k": 1})
        with pytest.raises(TaskRevoked):
            await handle.result(timeout=1)
        assert stem.backend is not None
        assert await revocation.read(stem.backend, handle.id) is None
        assert await ask(handle, "revoke") is True


async def test_a_task_that_owes_a_reply_is_left_to_a_worker(stem: Stem) -> None:
    handle = await stem.enqueue("a", enqueue_options=TaskEnqueueOptions(reply_to="answers"))
    assert await handle.revoke() is False
    assert (await stem.broker.stats("default")).ready == 1
    assert stem.backend is not None
    assert await revocation.read(stem.backend, handle.id) is not None


async def test_a_running_task_is_left_to_its_worker(stem: Stem, ask: Any) -> None:
    handle = await stem.enqueue("a")
    await stem.broker.receive(["default"], limit=1, lease=30, wait=0)
    assert await ask(handle, "revoke", terminate=True) is False
    assert await ask(handle, "revoke") is False
    assert stem.backend is not None
    found = await revocation.read(stem.backend, handle.id)
    assert found is not None
    assert found.terminate
    assert (await handle.status()).state is TaskState.QUEUED  # type: ignore[union-attr]
    await revocation.forget(stem.backend, handle.id)
    assert await revocation.read(stem.backend, handle.id) is None


async def test_too_late_is_said(stem: Stem, ask: Any) -> None:
    handle = await stem.enqueue("a")
    await record(stem, handle.id, TaskState.SUCCEEDED, 1)
    assert await ask(handle, "revoke") is False
    assert stem.backend is not None
    assert await revocation.read(stem.backend, handle.id) is None


async def test_a_revocation_that_loses_the_race_leaves_nothing(
    stem: Stem, ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = await stem.enqueue("a")
    await stem.broker.receive(["default"], limit=1, lease=30, wait=0)
    backend: Any = stem.backend
    write = backend.state_write

    async def ends_first(key: str, *arguments: Any, **more: Any) -> Any:
        await record(stem, handle.id, TaskState.SUCCEEDED, 1)
        return await write(key, *arguments, **more)

    monkeypatch.setattr(backend, "state_write", ends_first)
    assert await ask(handle, "revoke") is False
    assert await revocation.read(backend, handle.id) is None


async def test_without_withdraw_the_worker_that_meets_it_is_told(lab: Any) -> None:
    here = await lab({"withdraw": False})
    handle = await here.stem.enqueue("a")
    assert await handle.revoke() is False
    assert await revocation.read(here.backend, handle.id) is not None
    assert (await here.stem.broker.stats("default")).ready == 1


async def test_without_shared_state_nothing_can_be_called_off(lab: Any) -> None:
    here = await lab({}, {"state": False})
    handle = await here.stem.enqueue("a")
    with pytest.raises(UnsupportedCapability, match="shared state"):
        await handle.revoke()


@pytest.mark.parametrize("joined", [True, False])
async def test_a_withdrawn_member_reports_to_its_group(joined: bool, lab: Any) -> None:
    stem = Stem("memory://") if joined else (await lab()).stem
    async with stem:
        assert stem.backend is not None
        call: Signature[Any] = Signature(name="member", options=TaskOptions(queue="m"))
        envelope, sealed = stem.seal_call(call, group="g")
        after, after_sealed = stem.seal_call(Signature(name="after"))
        callback: Callback = callback_of(after, after_sealed, stem.broker.capabilities)
        await stem.backend.group_create("g", [envelope.id], [callback], None, 600)
        member = callback_of(envelope, sealed, stem.broker.capabilities)
        await stem.backend.record([member.queued])
        await stem.broker.publish([member.message])
        assert await stem.handle(envelope.id).revoke() is True
        record = await stem.backend.group_get("g")
        assert record is not None
        assert record.completed_by == envelope.id
        assert record.outcomes[envelope.id].state is TaskState.CANCELLED
        assert (await stem.broker.stats("default")).ready == 1
        assert (await stem.handle(after.id).status()).state is TaskState.QUEUED  # type: ignore[union-attr]


def test_a_handle_is_its_id() -> None:
    handle = Stem("memory://").handle("abc")
    assert str(handle) == handle.id == "abc"
    assert repr(handle) == "<TaskHandle abc>"


async def test_timeouts_are_seconds_or_timedeltas_everywhere(stem: Stem) -> None:
    definition = TaskDefinition("echo", args=int, result=int)

    @stem.task(name="echo")
    async def echo(value: int) -> int:
        return value

    patience = timedelta(seconds=20)
    async with Worker(stem, wait=0.1):
        assert await definition.enqueue_and_wait(stem, 1, timeout=patience) == 1
        canvas = Canvas(stem)
        assert await (await canvas.group([echo.s(2), echo.s(3)])).result(timeout=patience) == [2, 3]
        assert await (await canvas.chain([echo.s(4), echo.s()])).result(timeout=patience) == 4
        assert [each.answer for each in await stem.control.ping(timeout=patience)] == ["pong"]


@pytest.mark.parametrize("odd", [None, 5, b"x"])
def test_a_handle_is_of_an_id(odd: Any) -> None:
    with pytest.raises(TypeError, match=f"task_id={odd!r} must be the id of a task"):
        Stem("memory://").handle(odd)


async def test_calls_to_be_enqueued_are_in_a_list() -> None:
    stem = Stem("memory://")

    @stem.task
    async def add(x: int) -> int:
        return x

    async with stem:
        with pytest.raises(TypeError, match="enqueue_many takes a list of calls"):
            await stem.enqueue_many(add.call(1))  # type: ignore[arg-type]
