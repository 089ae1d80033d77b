"""A worker killed at every await of its way, and another that finds what it left.

For each story the first worker dies at step k = 1, 2, ... until one gets through alive. After each death its
leases end and a second worker works on. Then nothing may be lost, and nothing done twice in effect: every task
has one recorded end, with the right value; no handler is called for a task whose end is recorded; what a
story publishes exists once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from killing import LEASE, Fate, World

from stem_core import Stem, TaskContext, TaskRetryPolicy
from stem_core.canvas import Canvas
from stem_core.names import DEADLINE_TASK
from stem_core.plugins import Catalogue, discover
from stem_core.status import StatusQuery, TaskState


@dataclass
class Story:
    """What is enqueued, and what must have come of it."""

    world: World
    stem: Stem
    """The producer's."""
    wanted: dict[str, tuple[TaskState, bytes | None]] = field(default_factory=dict)
    """The end and value of each task, by name: as many tasks as names."""
    dead: list[str] = field(default_factory=list)
    """Reasons of the dead letters there must be."""
    too_late: list[str] = field(default_factory=list)
    """Handlers called after their end was recorded."""

    async def called(self, ctx: TaskContext) -> None:
        backend: Any = self.stem.backend
        (status,) = await backend.inner.fetch([ctx.id])
        if status is not None and status.terminal and status.generation >= ctx.generation:
            self.too_late.append(ctx.name)


def declare(story: Story, stem: Stem) -> dict[str, Any]:
    """The same tasks for both workers."""

    @stem.task(name="one")
    async def one(ctx: TaskContext) -> int:
        await story.called(ctx)
        return 1

    @stem.task(name="plus")
    async def plus(ctx: TaskContext, value: int) -> int:
        await story.called(ctx)
        return value + 1

    @stem.task(name="twice")
    async def twice(ctx: TaskContext, value: int) -> int:
        await story.called(ctx)
        return value * 2

    @stem.task(name="number")
    async def number(ctx: TaskContext, n: int) -> int:
        await story.called(ctx)
        return n

    @stem.task(name="total")
    async def total(ctx: TaskContext, values: list[int]) -> int:
        await story.called(ctx)
        return sum(values)

    @stem.task(name="bad")
    async def bad(ctx: TaskContext) -> None:
        await story.called(ctx)
        raise ValueError("bad")

    @stem.task(name="heard")
    async def heard(ctx: TaskContext, error: dict[str, str]) -> str:
        await story.called(ctx)
        return error["type"]

    @stem.task(name="flaky", max_retries=1, retry_policy=TaskRetryPolicy(jitter=False))
    async def flaky(ctx: TaskContext) -> str:
        await story.called(ctx)
        if ctx.attempt == 0:
            raise ValueError("the first time")
        return "the second time"

    @stem.task(name="unsure", max_retries=1)
    async def unsure(ctx: TaskContext) -> int:
        await story.called(ctx)
        if ctx.attempt == 0:
            raise ValueError("the first time")
        return 5

    @stem.task(name="healed")
    async def healed(ctx: TaskContext) -> str:
        await story.called(ctx)
        if ctx.generation == 0:
            raise ValueError("before the replay")
        return "replayed"

    @stem.task(name="limited", rate_limit="100/s", max_concurrency=2)
    async def limited(ctx: TaskContext, n: int) -> int:
        await story.called(ctx)
        return n

    return dict(stem.tasks)


async def success_with_a_link(story: Story, tasks: dict[str, Any]) -> None:
    await tasks["one"].with_options(link=[tasks["plus"].s()]).enqueue()
    story.wanted = {"one": (TaskState.SUCCEEDED, b"1"), "plus": (TaskState.SUCCEEDED, b"2")}


async def failure_with_a_link(story: Story, tasks: dict[str, Any]) -> None:
    await tasks["bad"].with_options(link_error=[tasks["heard"].s()]).enqueue()
    story.wanted = {"bad": (TaskState.FAILED, None), "heard": (TaskState.SUCCEEDED, b'"ValueError"')}
    story.dead = ["max-retries-exhausted"]


async def a_retry(story: Story, tasks: dict[str, Any]) -> None:
    await tasks["flaky"].enqueue()
    story.wanted = {"flaky": (TaskState.SUCCEEDED, b'"the second time"')}


async def a_chain_of_three(story: Story, tasks: dict[str, Any]) -> None:
    await Canvas(story.stem).chain([tasks["one"].s(), tasks["plus"].s(), tasks["twice"].s()])
    story.wanted = {
        "one": (TaskState.SUCCEEDED, b"1"),
        "plus": (TaskState.SUCCEEDED, b"2"),
        "twice": (TaskState.SUCCEEDED, b"4"),
    }


async def a_chord(story: Story, tasks: dict[str, Any]) -> None:
    body = [tasks["number"].s(3), tasks["one"].s(), tasks["unsure"].s()]
    await Canvas(story.stem).chord(body, tasks["total"].s())
    story.wanted = {
        "number": (TaskState.SUCCEEDED, b"3"),
        "one": (TaskState.SUCCEEDED, b"1"),
        "unsure": (TaskState.SUCCEEDED, b"5"),
        "total": (TaskState.SUCCEEDED, b"9"),
    }


async def a_failing_chord(story: Story, tasks: dict[str, Any]) -> None:
    await Canvas(story.stem).chord([tasks["one"].s(), tasks["bad"].s()], tasks["total"].s())
    story.wanted = {
        "one": (TaskState.SUCCEEDED, b"1"),
        "bad": (TaskState.FAILED, None),
        "total": (TaskState.FAILED, None),
    }
    story.dead = ["input-missing", "max-retries-exhausted"]


async def a_replay(story: Story, tasks: dict[str, Any]) -> None:
    await tasks["healed"].enqueue()
    before = story.world.stem()
    declare(story, before)
    await story.world.work(before)
    assert len(await story.stem.broker.dead_replay("default")) == 1
    story.wanted = {"healed": (TaskState.SUCCEEDED, b'"replayed"')}


async def a_shared_limit(story: Story, tasks: dict[str, Any]) -> None:
    await tasks["limited"].enqueue(7)
    story.wanted = {"limited": (TaskState.SUCCEEDED, b"7")}


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return discover()


STORIES = [
    success_with_a_link,
    failure_with_a_link,
    a_retry,
    a_chain_of_three,
    a_chord,
    a_failing_chord,
    a_replay,
    a_shared_limit,
]


@pytest.mark.parametrize("joined", [True, False], ids=["one store", "two stores"])
@pytest.mark.parametrize("write", STORIES, ids=lambda story: story.__name__)
async def test_nothing_is_lost_or_done_twice_wherever_the_worker_dies(
    write: Callable[[Story, dict[str, Any]], Awaitable[None]], joined: bool, catalogue: Catalogue
) -> None:
    step, lived = 0, False
    while not lived:
        step += 1
        lived = await live_through(write, World(catalogue, joined=joined), step)
    assert step > 3, "the way has more steps than that: nothing was killed"


async def live_through(
    write: Callable[[Story, dict[str, Any]], Awaitable[None]], world: World, step: int
) -> bool:
    """Whether the first worker got through alive; checks what came of it all."""
    producer = world.stem()
    story = Story(world, producer)
    await write(story, declare(story, producer))
    fate = Fate(step)
    doomed, heir = world.stem(fate), world.stem()
    declare(story, doomed)
    declare(story, heir)
    lived = await world.work(doomed, fate)
    for _ in range(2):  # leases, and the places of limits, end one after the other
        world.clock.advance(LEASE * 2)
        await world.work(heir)
    await check(story, f"killed {fate.where} (step {step})")
    await producer.close()
    await heir.close()
    return lived


async def check(story: Story, when: str) -> None:
    backend: Any = story.stem.backend
    page = await backend.list(StatusQuery(limit=100))
    ended = [status for status in page.items if status.name != DEADLINE_TASK]  # that is still to come
    names = Counter(status.name for status in ended)
    assert names == Counter(story.wanted.keys()), when
    for status in ended:
        assert (status.state, status.payload) == story.wanted[status.name], (when, status)
    assert not story.too_late, when
    stats = await story.stem.broker.stats("default")
    assert (stats.ready, stats.leased) == (0, 0), when
    dead = (await story.stem.broker.dead_list("default")).items
    assert sorted(each.reason for each in dead) == story.dead, when
