"""Publishes that go wrong: refused, of unknown fate, out of reach, given up; and what strangers notice of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from stem_core import (
    AdapterError,
    PayloadTooLarge,
    PublishError,
    Signature,
    Stem,
    StemError,
    TaskEnqueueOptions,
    TaskOptions,
    TaskRetryPolicy,
    TaskState,
)
from stem_core.envelope import Message

NOW = TaskRetryPolicy(default_delay=0, max_retries=3)


def names(batches: list[list[Message]]) -> list[list[str]]:
    return [[each.id for each in batch] for batch in batches]


def with_id(name: str) -> TaskEnqueueOptions:
    return TaskEnqueueOptions(task_id=name)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


async def test_a_refused_publish_is_recorded_and_raised(lab: Any, way: Any) -> None:
    here = await lab()
    here.broker.faults = [PublishError("the disk is full", "refused")]
    call: Signature[Any] = Signature(name="a", enqueue_options=with_id("x"))
    with pytest.raises(PublishError, match=r"'a' \(x\) was refused: the disk is full") as caught:
        await way(here.stem, call)
    assert caught.value.outcome == "refused"
    status = await here.stem.handle("x").status()
    assert (status.state, status.reason) == (TaskState.FAILED, "publish-failed")
    assert not status.terminal
    await way(here.stem, call)
    assert (await here.stem.handle("x").status()).state is TaskState.QUEUED


async def test_an_unknown_fate_is_raised_and_never_sent_twice(lab: Any, way: Any) -> None:
    here = await lab()
    here.broker.stored_first = True
    here.broker.faults = [AdapterError("connection lost")]
    with pytest.raises(PublishError, match=r"may or may not.*connection lost") as caught:
        await way(here.stem, Signature(name="a"))
    assert caught.value.outcome == "unknown"
    assert isinstance(caught.value.__cause__, AdapterError)
    assert len(here.broker.published) == 1
    assert (await here.stem.broker.stats("default")).ready == 1


async def test_an_unknown_fate_is_sent_again_for_a_message_that_can_be(lab: Any) -> None:
    here = await lab()
    here.broker.stored_first = True
    here.broker.faults = [AdapterError("connection lost")]
    handle = await here.stem.enqueue("a", enqueue_options=with_id("x"))
    assert names(here.broker.published) == [["x"], ["x"]]
    assert (await here.stem.broker.stats("default")).ready == 1
    assert (await handle.status()).state is TaskState.QUEUED


async def test_what_took_all_its_time_is_not_sent_again_unasked(lab: Any) -> None:
    here = await lab(publish_timeout=0.05)
    here.broker.gate = asyncio.Event()
    with pytest.raises(PublishError, match="no answer in time") as caught:
        await here.stem.enqueue("a", enqueue_options=with_id("x"))
    assert caught.value.outcome == "unknown"
    assert names(here.broker.published) == [["x"]]
    here.broker.gate.set()


async def test_a_batch_of_unknown_fate_is_sent_again_for_its_once_messages_only(lab: Any) -> None:
    here = await lab()
    here.broker.gate = asyncio.Event()
    first = asyncio.create_task(here.stem.enqueue("a"))
    await until(lambda: len(here.broker.published) == 1)
    calls = [
        asyncio.create_task(here.stem.enqueue("a", enqueue_options=with_id("x") if i == 2 else None))
        for i in range(5)
    ]
    await asyncio.sleep(0)
    here.broker.faults = [None, ConnectionResetError("gone")]
    here.broker.gate.set()
    answers = await asyncio.gather(first, *calls, return_exceptions=True)
    assert [isinstance(each, PublishError) for each in answers] == [False, True, True, False, True, True]
    assert {each.outcome for each in answers if isinstance(each, PublishError)} == {"unknown"}
    assert [len(batch) for batch in here.broker.published] == [1, 5, 1]
    assert names(here.broker.published)[2] == ["x"]


async def test_retry_publishes_until_it_is_through(lab: Any, way: Any) -> None:
    here = await lab()
    here.broker.faults = [
        AdapterError("no route"),
        PublishError("not now", "refused"),
        AdapterError("no route"),
    ]
    options = TaskEnqueueOptions(retry=True, publish_retry_policy=NOW)
    handle = await way(here.stem, Signature(name="a", enqueue_options=options))
    assert names(here.broker.published) == [[handle.id]] * 4
    assert (await here.stem.broker.stats("default")).ready == 1


async def test_retry_gives_up_after_its_tries(lab: Any) -> None:
    here = await lab()
    here.broker.faults = [AdapterError("no route")] * 9
    options = TaskEnqueueOptions(
        retry=True, publish_retry_policy=TaskRetryPolicy(default_delay=0, max_retries=2)
    )
    with pytest.raises(PublishError, match="no route"):
        await here.stem.enqueue("a", enqueue_options=options)
    assert len(here.broker.published) == 3


async def test_retry_follows_the_retry_policy_when_it_has_none_of_its_own(lab: Any) -> None:
    here = await lab()
    here.broker.faults = [AdapterError("no route")] * 9
    options = TaskEnqueueOptions(retry=True, retry_policy=TaskRetryPolicy(max_retries=1))
    with pytest.raises(PublishError):
        await here.stem.enqueue("a", enqueue_options=options)
    assert len(here.broker.published) == 2


async def test_many_are_retried_one_by_one_after_a_fault(lab: Any) -> None:
    here = await lab()
    here.broker.faults = [AdapterError("no route")]
    retry = TaskEnqueueOptions(retry=True, publish_retry_policy=NOW)
    calls = [Signature[Any](name="a", enqueue_options=retry) for _ in range(3)]
    handles = await here.stem.enqueue_many(calls)
    assert {message.id for batch in here.broker.published[1:] for message in batch} == {
        each.id for each in handles
    }
    here.broker.faults = [AdapterError("no route")]
    with pytest.raises(PublishError, match="no route"):
        await here.stem.enqueue_many([*calls, Signature(name="a")])
    assert (await here.stem.broker.stats("default")).ready == 6


async def test_one_refused_message_does_not_fail_strangers(lab: Any) -> None:
    here = await lab()
    here.broker.gate = asyncio.Event()
    first = asyncio.create_task(here.stem.enqueue("a"))
    await until(lambda: len(here.broker.published) == 1)
    calls = [asyncio.create_task(here.stem.enqueue("a", enqueue_options=with_id(f"n{i}"))) for i in range(20)]
    await asyncio.sleep(0)
    here.broker.refuse = lambda message: (
        PublishError("bad", "refused") if message.id in {"n3", "n17"} else None
    )
    here.broker.gate.set()
    answers = await asyncio.gather(first, *calls, return_exceptions=True)
    bad = [i for i, each in enumerate(answers[1:]) if isinstance(each, BaseException)]
    assert bad == [3, 17]
    assert (await here.stem.broker.stats("default")).ready == 19
    assert (await here.stem.handle("n3").status()).reason == "publish-failed"
    assert (await here.stem.handle("n4").status()).state is TaskState.QUEUED


async def test_a_full_store_is_asked_once_for_a_batch(lab: Any) -> None:
    here = await lab()
    sizes: list[str] = []

    def full(message: Any) -> PublishError:
        sizes.append(message.id)
        error = PublishError("out of memory", "refused")
        error.__cause__ = AdapterError("OOM command not allowed")
        return error

    here.broker.refuse = full
    calls = [Signature[Any](name="a", enqueue_options=with_id(f"n{i}")) for i in range(16)]
    with pytest.raises(PublishError, match="out of memory"):
        await here.stem.enqueue_many(calls)
    assert len(sizes) == 1  # halved down to single messages it would be 31


async def test_a_message_too_large_for_the_store_fails_alone(lab: Any) -> None:
    here = await lab()
    here.broker.refuse = lambda message: PayloadTooLarge("too large") if message.id == "n1" else None
    calls = [Signature[Any](name="a", enqueue_options=with_id(f"n{i}")) for i in range(3)]
    with pytest.raises(PayloadTooLarge):
        await here.stem.enqueue_many(calls)
    assert (await here.stem.broker.stats("default")).ready == 2


async def test_the_brokers_limit_is_checked_before_anything_is_sent(lab: Any) -> None:
    here = await lab({"max_size": 500})
    with pytest.raises(PayloadTooLarge, match="the broker takes at most 500"):
        await here.stem.enqueue("a", args=["x" * 500])
    assert here.broker.published == []


async def test_a_cancelled_caller_touches_nobody_else(lab: Any) -> None:
    here = await lab()
    here.broker.gate = asyncio.Event()
    in_flight = asyncio.create_task(here.stem.enqueue("a", enqueue_options=with_id("in-flight")))
    await until(lambda: len(here.broker.published) == 1)
    waiting = asyncio.create_task(here.stem.enqueue("a", enqueue_options=with_id("waiting")))
    stranger = asyncio.create_task(here.stem.enqueue("a", enqueue_options=with_id("stranger")))
    await asyncio.sleep(0)
    in_flight.cancel()
    waiting.cancel()
    await asyncio.gather(in_flight, waiting, return_exceptions=True)
    here.broker.gate.set()
    assert (await stranger).id == "stranger"
    assert names(here.broker.published) == [["in-flight"], ["stranger"]]
    assert in_flight.cancelled()
    assert waiting.cancelled()
    assert await here.stem.handle("waiting").status() is None


async def test_a_store_out_of_reach_fails_the_call_in_time(lab: Any, way: Any) -> None:
    here = await lab(publish_timeout=0.05)
    here.broker.gate = asyncio.Event()
    with pytest.raises(PublishError, match="no answer in time") as caught:
        await way(here.stem, Signature(name="a"))
    assert caught.value.outcome == "unknown"


async def test_a_call_that_waits_behind_a_stuck_batch_fails_as_not_sent(lab: Any) -> None:
    here = await lab(publish_timeout=0.2)
    here.broker.gate = asyncio.Event()
    stuck = asyncio.create_task(here.stem.enqueue("a"))
    await until(lambda: len(here.broker.published) == 1)
    behind = asyncio.create_task(here.stem.enqueue("a", enqueue_options=with_id("behind")))
    answers = await asyncio.gather(stuck, behind, return_exceptions=True)
    assert [type(each) for each in answers] == [PublishError, PublishError]
    assert answers[0].outcome == "unknown"
    here.broker.gate.set()
    await here.stem.close()


async def test_nothing_is_published_when_its_row_cannot_be_written(lab: Any) -> None:
    here = await lab()
    here.backend.faults = [AdapterError("read only")]
    with pytest.raises(PublishError, match="could not be recorded: read only") as caught:
        await here.stem.enqueue("a")
    assert caught.value.outcome == "refused"
    assert here.broker.published == []


async def test_rows_come_first_and_in_one_call_each(lab: Any) -> None:
    here = await lab()
    await here.stem.enqueue_many([Signature(name="a") for _ in range(50)])
    assert here.backend.recorded == 1
    assert [len(batch) for batch in here.broker.published] == [50]


async def test_many_are_checked_before_the_first_is_published(lab: Any) -> None:
    here = await lab()

    @here.stem.task
    async def one(x: int) -> int:
        return x

    with pytest.raises(TypeError, match="one"):
        await here.stem.enqueue_many([one.call(1), one.s()])
    assert here.broker.published == []


async def test_a_lone_call_goes_at_once_and_others_gather_behind_it(lab: Any) -> None:
    here = await lab()
    await here.stem.enqueue("a")
    await here.stem.enqueue("a")
    assert [len(batch) for batch in here.broker.published] == [1, 1]
    here.broker.gate = asyncio.Event()
    first = asyncio.create_task(here.stem.enqueue("a"))
    await until(lambda: len(here.broker.published) == 3)
    others = [asyncio.create_task(here.stem.enqueue("a")) for _ in range(100)]
    await asyncio.sleep(0)
    here.broker.gate.set()
    await asyncio.gather(first, *others)
    assert [len(batch) for batch in here.broker.published] == [1, 1, 1, 100]


async def test_closing_waits_for_what_is_under_way(lab: Any) -> None:
    here = await lab()
    here.broker.gate = asyncio.Event()
    call = asyncio.create_task(here.stem.enqueue("a"))
    await until(lambda: len(here.broker.published) == 1)
    closing = asyncio.create_task(here.stem.close())
    await asyncio.sleep(0)
    assert not closing.done()
    here.broker.gate.set()
    assert (await call).id
    await closing
    with pytest.raises(StemError, match="closed"):
        await here.stem.enqueue("a")


async def test_a_hook_that_raises_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    from stem_core import hookimpl

    seen: list[Any] = []

    class Plugin:
        @hookimpl
        def stem_before_publish(self, envelope: Any) -> None:
            seen.append(("before", envelope.id))
            raise RuntimeError("no")

        @hookimpl
        def stem_after_publish(self, envelope: Any, accepted: bool) -> None:
            seen.append(("after", envelope.id, accepted))

        @hookimpl
        def stem_enqueue_headers(self, call: Any) -> dict[str, str]:
            return {"traceparent": call["id"], "tenant": "plugin"}

    async with Stem("memory://", plugins=[Plugin()]) as stem:
        handle = await stem.enqueue("a", headers={"tenant": "acme"})
        (delivery,) = await stem.broker.receive(["default"], limit=1, lease=1, wait=0)
    assert seen == [("before", handle.id), ("after", handle.id, True)]
    assert stem.wiring.unseal(delivery.message.sealed).headers == {"traceparent": handle.id, "tenant": "acme"}
    assert "stem_before_publish raised" in caplog.text


def test_options_of_one_publish_do_not_fill_memory() -> None:
    stem = Stem("memory://")
    for i in range(600):
        stem._planner.draft(Signature(name="a", options=TaskOptions(priority=i % 10)))
    assert len(stem._planner._plans) <= 512


async def test_a_lone_call_that_is_late_leaves_its_task_uncancelled(lab: Any) -> None:
    here = await lab(publish_timeout=0.05)
    here.broker.gate = asyncio.Event()
    task = asyncio.current_task()
    assert task is not None
    with pytest.raises(PublishError, match="no answer in time"):
        await here.stem.enqueue("a")
    assert task.cancelling() == 0
    here.broker.gate.set()
    assert (await here.stem.enqueue("a")).id


async def test_a_callers_own_time_limit_ends_a_lone_call(lab: Any) -> None:
    here = await lab(publish_timeout=30)
    here.broker.gate = asyncio.Event()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await here.stem.enqueue("a")
    here.broker.gate.set()
    assert (await here.stem.enqueue("a")).id
