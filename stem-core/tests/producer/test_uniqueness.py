"""Unique tasks: one at a time for the same name, queue and arguments."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from stem_core import (
    AdapterError,
    ConfigurationError,
    PublishError,
    Signature,
    Stem,
    TaskEnqueueOptions,
    TaskOptions,
    TaskState,
)
from stem_core.clock import ManualClock
from stem_core.ports.specs import AdapterOptions
from stem_core.shared import uniqueness
from stem_core.shared.uniqueness import lock_key
from stem_core.status import StatusUpdate

UNIQUE = TaskOptions(unique=True)


async def finish(stem: Stem, id: str, state: TaskState = TaskState.SUCCEEDED) -> None:
    assert stem.backend is not None
    assert await stem.backend.record([StatusUpdate(id=id, state=state)]) == [True]


async def test_a_duplicate_answers_the_handle_there_is(stem: Stem, way: Any) -> None:
    call: Signature[Any] = Signature(name="a", args=(1,), options=UNIQUE)
    first = await way(stem, call)
    second = await way(stem, call)
    third = await way(stem, call)
    assert (first.deduplicated, second.deduplicated) == (False, True)
    assert first.id == second.id == third.id
    assert (await stem.broker.stats("default")).ready == 1
    assert (await first.status()).meta == {"stem.duplicates": 2}


@pytest.mark.parametrize(
    "other",
    [
        Signature(name="b", args=(1,), options=UNIQUE),
        Signature(name="a", args=(2,), options=UNIQUE),
        Signature(name="a", kwargs={"x": 1}, options=UNIQUE),
        Signature(name="a", args=(1,), options=TaskOptions(unique=True, queue="q")),
        Signature(name="a", args=(1,)),
    ],
)
async def test_what_differs_is_no_duplicate(stem: Stem, other: Any) -> None:
    await stem.enqueue("a", args=[1], options=UNIQUE)
    assert not (await stem.enqueue_call(other)).deduplicated


async def test_headers_do_not_differ_a_call(stem: Stem) -> None:
    await stem.enqueue("a", options=UNIQUE, headers={"a": "1"})
    assert (await stem.enqueue("a", options=UNIQUE, headers={"a": "2"})).deduplicated


async def test_a_unique_key_stands_for_the_arguments(stem: Stem) -> None:
    options = TaskOptions(unique=True, unique_key="nightly")
    await stem.enqueue("a", args=[1], options=options)
    assert (await stem.enqueue("a", args=[2], options=options)).deduplicated
    assert not (await stem.enqueue("b", args=[2], options=options)).deduplicated


async def test_who_finds_the_holder_ended_takes_over(stem: Stem) -> None:
    first = await stem.enqueue("a", options=UNIQUE)
    for state in (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED):
        await finish(stem, first.id, state)
        second = await stem.enqueue("a", options=UNIQUE)
        assert not second.deduplicated
        assert second.id != first.id
        first = second


async def test_release_frees_the_lock_of_its_holder_only(stem: Stem, take: Any) -> None:
    await stem.enqueue("a", options=UNIQUE)
    ((_, envelope),) = await take(stem)
    assert stem.backend is not None
    await uniqueness.release(stem.backend, envelope.unique, "somebody-else")
    assert (await stem.enqueue("a", options=UNIQUE)).deduplicated
    await uniqueness.release(stem.backend, envelope.unique, envelope.id)
    assert not (await stem.enqueue("a", options=UNIQUE)).deduplicated


async def test_the_same_id_is_no_duplicate_of_itself(stem: Stem) -> None:
    enqueue = TaskEnqueueOptions(task_id="x")
    assert not (await stem.enqueue("a", options=UNIQUE, enqueue_options=enqueue)).deduplicated
    assert not (await stem.enqueue("a", options=UNIQUE, enqueue_options=enqueue)).deduplicated
    assert (await stem.broker.stats("default")).ready == 1


async def test_of_many_at_once_one_wins(stem: Stem) -> None:
    handles = await asyncio.gather(*(stem.enqueue("a", options=UNIQUE) for _ in range(40)))
    assert len({each.id for each in handles}) == 1
    assert [each.deduplicated for each in handles].count(False) == 1
    assert (await stem.broker.stats("default")).ready == 1


async def test_many_in_one_call(stem: Stem) -> None:
    calls = [Signature[Any](name="a", args=(i % 3,), options=UNIQUE) for i in range(9)]
    handles = await stem.enqueue_many([*calls, Signature(name="b")])
    assert [each.deduplicated for each in handles] == [False] * 3 + [True] * 6 + [False]
    assert [each.id for each in handles[:3]] * 3 == [each.id for each in handles[:9]]


async def test_a_refused_publish_lets_go(lab: Any) -> None:
    here = await lab()
    here.broker.faults = [PublishError("full", "refused")]
    with pytest.raises(PublishError):
        await here.stem.enqueue("a", options=UNIQUE)
    assert not (await here.stem.enqueue("a", options=UNIQUE)).deduplicated


async def test_an_unknown_fate_holds_on(lab: Any) -> None:
    here = await lab()
    here.broker.faults = [AdapterError("gone")]
    with pytest.raises(PublishError):
        await here.stem.enqueue("a", options=UNIQUE)
    assert (await here.stem.enqueue("a", options=UNIQUE)).deduplicated


async def test_a_cancelled_caller_leaves_lock_and_message_together(lab: Any) -> None:
    here = await lab()
    here.broker.gate = asyncio.Event()
    call = asyncio.create_task(here.stem.enqueue("a", options=UNIQUE))
    while not here.broker.published:
        await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    here.broker.gate.set()
    assert (await here.stem.enqueue("a", options=UNIQUE)).deduplicated
    assert (await here.stem.broker.stats("default")).ready == 1


async def test_the_lock_ends_after_unique_for_else_with_the_result(lab: Any) -> None:
    clock = ManualClock()
    from stem_core.builtin.plugin import MEMORY_BACKEND

    backend = MEMORY_BACKEND.open("memory://", AdapterOptions(clock=clock))
    async with Stem("memory://", backend=backend) as stem:
        await stem.enqueue("a", options=TaskOptions(unique=True, unique_for=60))
        await stem.enqueue(
            "b",
            options=TaskOptions(unique=True, result_ttl=600),
            enqueue_options=TaskEnqueueOptions(countdown=100),
        )
        clock.advance(59)
        assert (await stem.enqueue("a", options=TaskOptions(unique=True, unique_for=60))).deduplicated
        clock.advance(2)
        assert not (await stem.enqueue("a", options=TaskOptions(unique=True, unique_for=60))).deduplicated
        clock.advance(600)
        assert (await stem.enqueue("b", options=UNIQUE)).deduplicated
        clock.advance(100_000)
        assert not (await stem.enqueue("b", options=UNIQUE)).deduplicated


async def test_unique_does_not_go_with_a_connection_of_the_callers(stem: Stem) -> None:
    with pytest.raises(ConfigurationError, match="cannot be part of the transaction"):
        await stem.enqueue(
            "a", options=UNIQUE, enqueue_options=TaskEnqueueOptions(publish_connection=object())
        )


def test_locks_do_not_run_together() -> None:
    keys = [
        lock_key("a", "b", None, b"c"),
        lock_key("ab", "", None, b"c"),
        lock_key("a", "bc", None, b""),
        lock_key("a", "b", "c", b"c"),
    ]
    assert len(set(keys)) == 4
    assert lock_key("a", "b", "k", b"1") == lock_key("a", "b", "k", b"2")
