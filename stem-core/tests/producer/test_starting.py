"""What is enqueued through a committer that starts without waiting: it is sent while the next calls are drafted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from stem_core import (
    AdapterError,
    PublishError,
    Signature,
    Stem,
    StemError,
    TaskEnqueueOptions,
    TaskState,
    hookimpl,
)
from stem_core.builtin.plugin import MEMORY_BACKEND, MEMORY_BROKER
from stem_core.ports.committer import Committer, Ended, Step
from stem_core.ports.specs import AdapterOptions

ENOUGH = 64


class Starting:
    """Starts what a memory committer then does when the test lets it; ``declines`` and ``fails`` stand in its way."""

    enough = ENOUGH

    def __init__(self, inner: Committer) -> None:
        self.inner = inner
        self.started: list[tuple[list[str], Ended, Sequence[Step]]] = []
        self.committed: list[list[str]] = []
        self.declines: Callable[[list[str]], bool] = lambda ids: False

    def start(self, steps: Sequence[Step], timeout: float, ended: Ended) -> bool:
        ids = ids_of(steps)
        if self.declines(ids):
            return False
        self.started.append((ids, ended, steps))
        return True

    async def commit(self, steps: Sequence[Step]) -> Sequence[bool]:
        self.committed.append(ids_of(steps))
        return await self.inner.commit(steps)

    @property
    def sizes(self) -> list[int]:
        return [len(ids) for ids, _, _ in self.started]

    async def do(self, *failures: Exception | None) -> None:
        """Do what was started, in order; or tell that it failed instead."""
        started, self.started = self.started, []
        for n, (_, ended, steps) in enumerate(started):
            failure = failures[n] if n < len(failures) else None
            ended(await self.inner.commit(steps) if failure is None else failure)


class Broker:
    def __init__(self, options: AdapterOptions) -> None:
        self.inner = MEMORY_BROKER.open("memory://", options)
        self.capabilities = MEMORY_BROKER.capabilities
        self.committer: Starting | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def join(self, backend: Any) -> Starting:
        inner = self.inner.join(backend)
        assert inner is not None
        self.committer = Starting(inner)
        return self.committer


class Lab:
    def __init__(self, **arguments: Any) -> None:
        options = AdapterOptions()
        self.broker = Broker(options)
        backend = MEMORY_BACKEND.open("memory://", options)
        self.stem = Stem(self.broker, backend=backend, **arguments)  # type: ignore[arg-type]

    @property
    def committer(self) -> Starting:
        assert self.broker.committer is not None
        return self.broker.committer

    def enqueue(self, id: str | None = None) -> asyncio.Task[Any]:
        options = None if id is None else TaskEnqueueOptions(task_id=id)
        return asyncio.ensure_future(self.stem.enqueue("a", enqueue_options=options))

    async def some(self, count: int) -> list[asyncio.Task[Any]]:
        """So many calls, each as far as it gets by itself."""
        calls = [self.enqueue() for _ in range(count)]
        await asyncio.sleep(0)
        return calls

    def many(self, count: int) -> asyncio.Task[Any]:
        return asyncio.ensure_future(self.stem.enqueue_many([Signature(name="a") for _ in range(count)]))

    async def ready(self) -> int:
        stats = await self.stem.broker.stats("default")
        return stats.ready


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    made = Lab()
    async with made.stem:
        yield made


def ids_of(steps: Sequence[Step]) -> list[str]:
    return [message.id for step in steps for message in step.publishes]


async def test_a_lone_call_is_started_at_once_and_full_batches_do_not_wait_for_it(lab: Lab) -> None:
    calls = await lab.some(1 + 2 * ENOUGH + 7)
    assert lab.committer.sizes == [1, ENOUGH, ENOUGH]
    sent = [ids for ids, _, _ in lab.committer.started]
    await lab.committer.do()
    assert lab.committer.sizes == [7]
    sent += [ids for ids, _, _ in lab.committer.started]
    await lab.committer.do()
    handles = await asyncio.gather(*calls)
    assert [handle.id for handle in handles] == [id for ids in sent for id in ids]
    assert await lab.ready() == len(calls)
    assert lab.committer.committed == []


async def test_what_is_declined_is_committed_and_overtakes_nothing(lab: Lab) -> None:
    odd = "odd"
    lab.committer.declines = lambda ids: odd in ids
    calls = [lab.enqueue(), lab.enqueue(odd), *(lab.enqueue() for _ in range(2 * ENOUGH))]
    await asyncio.sleep(0)
    assert lab.committer.sizes == [
        1
    ]  # the batch behind it is declined, and what is behind that must not overtake
    assert lab.committer.committed == []
    await lab.committer.do()
    while not lab.committer.started:
        await asyncio.sleep(0)
    (committed,) = lab.committer.committed
    assert committed[0] == odd
    assert len(committed) == ENOUGH
    assert lab.committer.sizes == [ENOUGH, 1]
    await lab.committer.do()
    assert len(await asyncio.gather(*calls)) == await lab.ready() == 2 + 2 * ENOUGH


async def test_a_failure_is_of_its_own_batch_only(lab: Lab) -> None:
    calls = await lab.some(1 + 3 * ENOUGH)
    await lab.committer.do(None, AdapterError("connection lost"), PublishError("full", "refused"))
    answers = await asyncio.gather(*calls, return_exceptions=True)
    told = [getattr(answer, "outcome", "stored") for answer in answers]
    # A refusal that names no cause is narrowed down to the messages that deserve it: here none does.
    assert told == ["stored", *["unknown"] * ENOUGH, *["stored"] * 2 * ENOUGH]
    assert await lab.ready() == 1 + 2 * ENOUGH


async def test_a_full_store_refuses_a_batch_and_is_not_asked_again(lab: Lab) -> None:
    calls = await lab.some(1 + ENOUGH)
    error = PublishError("out of memory", "refused")
    error.__cause__ = AdapterError("OOM")
    await lab.committer.do(None, error)
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [getattr(answer, "outcome", "stored") for answer in answers] == ["stored", *["refused"] * ENOUGH]
    assert lab.committer.committed == []
    assert await lab.ready() == 1


async def test_an_unknown_fate_is_sent_again_for_a_message_that_can_be(lab: Lab) -> None:
    calls = [lab.enqueue(), lab.enqueue("x")]
    await asyncio.sleep(0)
    await lab.committer.do()
    assert lab.committer.started[0][0] == ["x"]
    await lab.committer.do(AdapterError("connection lost"))
    while not lab.committer.started:
        await asyncio.sleep(0)
    await lab.committer.do()
    assert [handle.id for handle in await asyncio.gather(*calls)][1] == "x"
    assert await lab.ready() == 2


async def test_a_caller_that_gives_up_touches_nobody_else(lab: Lab) -> None:
    calls = await lab.some(1 + ENOUGH + 3)
    gone = [calls[0], calls[5], calls[-1]]
    for call in gone:
        call.cancel()
    await asyncio.gather(*gone, return_exceptions=True)
    await lab.committer.do()
    assert lab.committer.sizes == [2]  # one of three that had gathered is not sent any more
    await lab.committer.do()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [n for n, answer in enumerate(answers) if isinstance(answer, BaseException)] == [
        0,
        5,
        len(calls) - 1,
    ]
    assert await lab.ready() == len(calls) - 1


async def test_a_batch_that_everyone_left_is_not_sent(lab: Lab) -> None:
    calls = await lab.some(4)
    for call in calls[1:]:
        call.cancel()
    await asyncio.gather(*calls[1:], return_exceptions=True)
    await lab.committer.do()
    assert lab.committer.started == []
    await calls[0]
    again = lab.enqueue()
    await asyncio.sleep(0)
    await lab.committer.do()
    await again
    assert await lab.ready() == 2


async def test_each_call_has_its_own_deadline_and_a_late_answer_is_no_error() -> None:
    lab = Lab(publish_timeout=0.1)
    async with lab.stem:
        calls = await lab.some(1 + ENOUGH + 1)
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert [getattr(answer, "outcome", "stored") for answer in answers] == ["unknown"] * (1 + ENOUGH) + [
            "refused"
        ]
        assert "was not sent" in str(answers[-1])
        await lab.committer.do()
        last = await lab.some(1)
        await lab.committer.do()
        await last[0]


async def test_closing_waits_for_everything_under_way(lab: Lab) -> None:
    calls = await lab.some(1 + ENOUGH + 1)
    closing = asyncio.ensure_future(lab.stem.close())
    await asyncio.sleep(0)
    await lab.committer.do()
    assert not closing.done()
    committer = lab.committer
    await committer.do()
    await closing
    assert len(await asyncio.gather(*calls)) == 2 + ENOUGH
    with pytest.raises(StemError, match="closed"):
        await lab.stem.enqueue("a")


async def test_many_go_in_order_and_each_batch_has_its_own_fate(lab: Lab) -> None:
    many = lab.many(2 * ENOUGH + 9)
    await asyncio.sleep(0)
    assert lab.committer.sizes == [ENOUGH, ENOUGH, 9]
    sent = [id for ids, _, _ in lab.committer.started for id in ids]
    await lab.committer.do()
    assert [handle.id for handle in await many] == sent
    failing = lab.many(2 * ENOUGH + 9)
    await asyncio.sleep(0)
    await lab.committer.do(None, AdapterError("connection lost"))
    with pytest.raises(PublishError, match="connection lost"):
        await failing
    assert await lab.ready() == 3 * ENOUGH + 18


async def test_many_wait_for_room_and_go_on(lab: Lab) -> None:
    """Declined while others are under way: it is tried again when one has ended, not sent another way."""
    lab.committer.declines = lambda ids: len(lab.committer.started) >= 2
    many = lab.many(5 * ENOUGH)
    await asyncio.sleep(0)
    while not many.done():
        await lab.committer.do()
        await asyncio.sleep(0)
    assert await lab.ready() == len(await many) == 5 * ENOUGH
    assert lab.committer.committed == []


async def test_many_whose_caller_gave_up_are_stored_all_the_same(lab: Lab) -> None:
    many = lab.many(2 * ENOUGH)
    await asyncio.sleep(0)
    many.cancel()
    await asyncio.gather(many, return_exceptions=True)
    await lab.committer.do(None, AdapterError("nobody hears this"))
    assert await lab.ready() == ENOUGH


async def test_each_is_announced_once_and_told_once() -> None:
    seen: dict[str, list[str]] = {}

    class Plugin:
        @hookimpl
        def stem_before_publish(self, envelope: Any) -> None:
            seen.setdefault(envelope.id, []).append("before")

        @hookimpl
        def stem_after_publish(self, envelope: Any, accepted: bool) -> None:
            seen[envelope.id].append(f"after {accepted}")

    lab = Lab(plugins=[Plugin()])
    async with lab.stem:
        calls = [lab.enqueue(), lab.enqueue("declined"), *(lab.enqueue() for _ in range(ENOUGH))]
        lab.committer.declines = lambda ids: "declined" in ids
        await asyncio.sleep(0)
        while not all(call.done() for call in calls):
            await lab.committer.do()
            await asyncio.sleep(0)
        many = lab.many(3)
        await asyncio.sleep(0)
        await lab.committer.do()
        await many
        assert len(seen) == len(calls) + 3
        assert set(map(tuple, seen.values())) == {("before", "after True")}
        handle = await calls[0]
        status = await handle.status()
        assert status.state is TaskState.QUEUED
