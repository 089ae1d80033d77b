"""Chains, groups and chords over every pair of adapters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from stem_core import Stem, TaskFailed, TaskOptions, TaskRevoked, Worker
from stem_core.canvas import Canvas, chain, chord, group
from stem_core.errors import ConfigurationError
from stem_core.status import TaskState
from tests.acceptance.conftest import Pair


def application(stem: Stem) -> SimpleNamespace:
    ran: list[str] = []

    @stem.task(name="add")
    async def add(x: int, y: int = 0) -> int:
        return x + y

    @stem.task(name="total")
    async def total(values: list[int]) -> int:
        ran.append("total")
        return sum(values)

    @stem.task(name="in_order")
    async def in_order(values: list[Any]) -> list[Any]:
        ran.append("in_order")
        return values

    @stem.task(name="boom")
    async def boom(x: int = 0) -> int:
        raise ValueError(f"boom {x}")

    @stem.task(name="slow")
    async def slow(x: int = 0) -> int:
        await asyncio.sleep(60)
        return x

    @stem.task(name="note")
    async def note() -> str:
        ran.append("note")
        return "noted"

    @stem.task(name="on_error")
    async def on_error(error: dict[str, Any]) -> str:
        ran.append(f"on_error {error['type']}")
        return str(error["id"])

    return SimpleNamespace(stem=stem, ran=ran, **{each.name: each for each in stem.tasks.values()})


@asynccontextmanager
async def running(pair: Pair, **arguments: Any) -> AsyncIterator[SimpleNamespace]:
    app = application(pair.make())
    async with app.stem, Worker(app.stem, wait=0.2, drain_timeout=0.2, **arguments):
        app.canvas = Canvas(app.stem)
        yield app


async def eventually(ask: Any, wanted: Any) -> Any:
    """What ``ask()`` answers once it is wanted. A status may be seen a moment before the group's count."""
    async with asyncio.timeout(20):
        while not wanted(answer := await ask()):
            await asyncio.sleep(0.01)
    return answer


async def test_results_come_in_order_however_nodes_are_nested(pair: Pair) -> None:
    async with running(pair) as app:
        add, total, canvas = app.add, app.total, app.canvas
        nodes = {
            "chain": (chain([add.s(1, 1), add.s(2), add.s(3)]), 7),
            "chord": (chord([add.s(i, i) for i in range(10)], total.s()), 90),
            "order": (chord([add.s(i) for i in (3, 1, 2)], app.in_order.s()), [3, 1, 2]),
            "group in chain": (chain([add.s(1), group([add.s(1), add.s(2)]), total.s(), add.s(100)]), 105),
            "group at the end": (chain([add.s(1), group([add.s(1), add.s(2)])]), [2, 3]),
            "group after group": (
                chain([group([add.s(1), add.s(2)]), group([total.s(), total.s()]), total.s()]),
                6,
            ),
            "chain in chord": (chord([chain([add.s(1), add.s(1)]), add.s(5)], total.s()), 7),
            "chord in chord": (chord([chord([add.s(1)], total.s()), add.s(2)], total.s()), 3),
            "group in chord": (
                chord([group([add.s(1), add.s(2)]), group([add.s(3)])], app.in_order.s()),
                [[1, 2], [3]],
            ),
            "empty chord": (chord([], total.s()), 0),
            "empty group in chain": (chain([add.s(1), group([]), total.s()]), 0),
            "immutable": (chain([add.s(1), app.note.si()]), "noted"),
            "one step": (chain([add.s(1, 2)]), 3),
        }
        handles = {name: await canvas.chain([node]) for name, (node, _) in nodes.items()}
        results = {name: await handle.result(timeout=20) for name, handle in handles.items()}
        assert results == {name: expected for name, (_, expected) in nodes.items()}


async def test_a_group_gives_each_result_as_it_finishes_and_all_in_order(pair: Pair) -> None:
    async with running(pair) as app:
        members = [app.add.s(i, 1) for i in range(20)]
        handle = await app.canvas.group([*members, app.boom.s(1)])
        results = {each.id: each async for each in handle.results(timeout=20)}
        assert [results[id].value for id in handle.members[:-1]] == list(range(1, 21))
        assert results[handle.members[-1]].error.type == "ValueError"
        progress = await eventually(handle.inspect, lambda each: each.terminal)
        assert (progress.total, progress.succeeded, progress.failed) == (21, 20, (handle.members[-1],))
        assert (progress.state, progress.terminal) == ("partial", True)
        with pytest.raises(TaskFailed, match="boom 1"):
            await handle.result(timeout=5)


async def test_a_batch_is_submitted_once_however_often_it_is_sent(pair: Pair) -> None:
    async with running(pair) as app:
        first = await app.canvas.submit_batch([app.total.s([1, 2]), app.total.s([3])], id="nightly")
        again = await app.canvas.submit_batch([app.total.s([1, 2]), app.total.s([3])], id="nightly")
        assert await first.result(timeout=20) == await again.result(timeout=20) == [3, 3]
        await eventually(partial(app.canvas.inspect_batch, "nightly"), lambda each: each.state == "succeeded")
        assert app.ran == ["total", "total"]
        with pytest.raises(ConfigurationError, match="nobody"):
            await app.canvas.inspect_batch("nobody")


async def test_a_failed_member_fails_the_chord_once_and_is_named(pair: Pair) -> None:
    async with running(pair) as app:
        callback = chain([app.total.s(), app.add.s(1)])
        handle = await app.canvas.chord([app.add.s(1), app.boom.s(7)], callback)
        with pytest.raises(TaskFailed, match=rf"{handle.id}\.2.*boom 7"):
            await handle.result(timeout=20)
        assert app.ran == []


async def test_a_failed_chain_calls_its_link_error(pair: Pair) -> None:
    async with running(pair) as app:
        last = app.add.s(1).with_options(link_error=[app.on_error.s()])
        handle = await app.canvas.chain([app.boom.s(1), last])
        with pytest.raises(TaskFailed):
            await handle.result(timeout=20)
        async with asyncio.timeout(20):
            while not app.ran:
                await asyncio.sleep(0.02)
        assert app.ran == ["on_error stem_core.InputFailed"]


async def test_an_expired_or_revoked_member_fails_the_chord(pair: Pair) -> None:
    app = application(pair.make())
    async with app.stem:
        canvas = Canvas(app.stem)
        expired = await canvas.chord([app.add.s(1).with_options(expires=0.01), app.add.s(2)], app.total.s())
        revoked = await canvas.chord([app.add.s(1), app.add.s(2)], app.total.s())
        await app.stem.handle(f"{revoked.id}.1").revoke()
        await asyncio.sleep(0.05)  # past the expiry, which is by the wall clock
        async with Worker(app.stem, wait=0.2):
            for handle in (expired, revoked):
                with pytest.raises(TaskFailed, match=rf"{handle.id}\.1"):
                    await handle.result(timeout=20)


async def test_a_purged_member_fails_the_chord_at_the_deadline(pair: Pair) -> None:
    app = application(pair.make())
    async with app.stem:
        canvas = Canvas(app.stem)
        lost = app.add.s(1).with_options(queue="lost")
        handle = await canvas.chord([app.add.s(2), lost], app.total.s(), deadline=0.5)
        assert await app.stem.broker.purge("lost") == 1
        async with Worker(app.stem, wait=0.2):
            # On a slow machine the deadline may come before the other member has ended: then that one is named.
            with pytest.raises(TaskFailed, match=rf"{handle.id}\.[12].*deadline"):
                await handle.result(timeout=20)
            progress = await eventually(partial(canvas.inspect_batch, handle.id), lambda each: each.succeeded)
        assert progress.pending == (f"{handle.id}.2",)


async def test_a_whole_graph_is_cancelled(pair: Pair) -> None:
    app = application(pair.make())
    async with app.stem:
        canvas = Canvas(app.stem)
        handle = await canvas.chain([group([app.add.s(1), app.add.s(2)]), app.total.s(), app.add.s(3)])
        assert await canvas.cancel(handle.id) == 4
        async with Worker(app.stem, wait=0.2) as worker:
            with pytest.raises(TaskRevoked, match="cancelled"):
                await handle.result(timeout=20)
            await (await app.note.enqueue()).result(timeout=20)
        assert worker.stats.succeeded == 1
        assert app.ran == ["note"]
        statuses = await app.stem.backend.fetch([f"{handle.id}.{n}" for n in (1, 2, 3, 4)])
        assert {each.state for each in statuses} == {TaskState.CANCELLED}


async def test_the_caller_may_die_after_submitting(pair: Pair) -> None:
    if pair.name == "memory":
        pytest.skip("memory:// is one process")
    first = application(pair.make())
    async with first.stem:
        handle = await Canvas(first.stem).chord([first.add.s(i) for i in range(5)], first.total.s())
    async with running(pair) as second:
        assert await second.stem.handle(handle.task.id, result=int).result(timeout=20) == 10


async def test_results_are_kept_for_the_callback_even_when_ignored(pair: Pair) -> None:
    async with running(pair) as app:
        quiet = app.add.s(1, 1).with_options(ignore_result=True)
        handle = await app.canvas.chord([quiet, quiet], app.total.s())
        assert await handle.result(timeout=20) == 4


async def test_canvas_needs_a_backend_with_groups() -> None:
    stem = Stem("memory://", backend=False)
    app = application(stem)
    async with stem:
        with pytest.raises(ConfigurationError, match="groups"):
            await Canvas(stem).group([app.add.s(1)])


async def test_arguments_are_checked_with_the_input_they_will_get() -> None:
    stem = Stem("memory://")
    app = application(stem)
    async with stem:
        canvas = Canvas(stem)
        with pytest.raises(TypeError, match="add"):
            await canvas.chain([app.add.s(1), app.add.s(1, 2)])
        with pytest.raises(TypeError, match="add"):
            await canvas.group([app.add.s()])
        with pytest.raises(TypeError, match="signature"):
            await canvas.group([app.add])
        with pytest.raises(ValueError, match="at least one"):
            await canvas.chain([])


async def test_a_large_group_costs_what_its_members_cost(pair_of: Any) -> None:
    """10,000 members finish on memory: nothing is quadratic, or this would not end in time."""
    async with running(pair_of("memory")) as app:
        handle = await app.canvas.chord([app.add.s(i) for i in range(10_000)], app.total.s())
        assert await handle.result(timeout=60) == sum(range(10_000))


async def test_a_task_of_another_queue_and_options_keeps_them(pair: Pair) -> None:
    async with running(pair, queues=["default", "other"]) as app:
        other = app.add.s(1).with_options(queue="other", priority=9)
        handle = await app.canvas.chain([other, app.add.s(1)])
        assert await handle.result(timeout=20) == 2
        (status,) = await app.stem.backend.fetch([f"{handle.id}.1"])
        assert (status.queue, status.name) == ("other", "add")
        assert TaskOptions().queue == "default"
