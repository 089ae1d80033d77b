"""Derived messages with a delay on brokers that cannot delay, or not for so long: workers hold them."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import pytest

from stem_core import Stem, TaskContext, TaskFailed, TaskRetryPolicy, TaskRevoked, UnsupportedCapability
from stem_core.canvas import Canvas
from stem_core.clock import ManualClock
from stem_core.envelope import Input
from stem_core.errors import AdapterError
from stem_core.plugins import discover
from stem_core.ports.specs import AdapterOptions
from stem_core.publishing import message_of
from stem_core.worker import Worker

CATALOGUE = discover()


class Place:
    """A Stem whose broker lacks something, with tasks that write down when they ran."""

    def __init__(self, *, joined: bool = True, **capabilities: Any) -> None:
        self.clock = ManualClock()
        options = AdapterOptions(clock=self.clock)
        broker: Any = CATALOGUE.broker("memory://").open("memory://", options)
        broker.capabilities = dataclasses.replace(broker.capabilities, **capabilities)
        # Two stores have no committer: the worker publishes in the safe order.
        where = AdapterOptions(clock=self.clock, namespace=options.namespace if joined else "elsewhere")
        backend = CATALOGUE.backend("memory://").open("memory://", where)
        self.stem = Stem(broker, backend=backend, plugins=CATALOGUE)
        self.stem.wiring.clock = self.clock
        self.ran: list[tuple[str, float]] = []

        @self.stem.task(name="first")
        async def first(fail: bool = False) -> str:
            self.note("first")
            if fail:
                raise ValueError("as asked")
            return "a value"

        @self.stem.task(name="then")
        async def then(*values: Any) -> list[Any]:
            self.note("then")
            return list(values)

        @self.stem.task(name="brief", result_ttl=15)
        async def brief() -> None:
            self.note("brief")

        @self.stem.task(name="again", max_retries=1, retry_policy=TaskRetryPolicy(default_delay=60))
        async def again(ctx: TaskContext, value: str) -> int:
            self.note("again")
            if ctx.attempt == 0:
                raise ValueError("once more")
            return ctx.attempt

        self.first, self.then, self.brief, self.again = first, then, brief, again

    def note(self, what: str) -> None:
        self.ran.append((what, self.clock.time()))

    async def until(self, condition: Callable[[], Any]) -> None:
        while not condition():
            await asyncio.sleep(0.001)

    async def held(self, worker: Worker, times: int, waiting: int = 1) -> None:
        """Until messages were given back that often, and that many wait in the broker."""
        await self.until(lambda: worker.stats.given_back == times)
        stats = await self.stem.broker.stats("default")
        assert (stats.ready, stats.scheduled, stats.leased) == (0, waiting, 0)


@pytest.fixture(params=[True, False], ids=["one store", "two stores"])
def place(request: pytest.FixtureRequest) -> Place:
    return Place(joined=request.param, delay=False)


async def is_held_for_30_s(place: Place, last: str, times: int = 1, waiting: int = 1) -> None:
    """``last`` runs 30 s after what came before it, and not a moment earlier; deadlines of graphs wait beside it."""
    async with Worker(place.stem, clock=place.clock, wait=0.01) as worker:
        await place.held(worker, times, waiting)
        before = place.ran[-1][1] if place.ran else place.clock.time()
        for _ in range(3):
            place.clock.advance(9.9)
            await place.held(worker, times, waiting)
        place.clock.advance(0.4)
        await place.until(lambda: place.ran and place.ran[-1][0] == last)
        assert 30.0 <= place.ran[-1][1] - before < 30.2


@pytest.mark.parametrize("kind", ["link", "immutable link", "link_error", "immutable link_error"])
async def test_a_link_runs_its_countdown_after_the_task(place: Place, kind: str) -> None:
    immutable, failing = kind.startswith("immutable"), kind.endswith("error")
    link = (place.then.si() if immutable else place.then.s()).with_options(countdown=30)
    options: dict[str, Any] = {"link_error": [link]} if failing else {"link": [link]}
    async with place.stem:
        await place.first.with_options(**options).enqueue(failing)
        place.clock.advance(100)  # what counts is the end of the first, not its enqueue
        await is_held_for_30_s(place, "then")
        assert [name for name, _ in place.ran] == ["first", "then"]


async def test_steps_of_a_chain_and_the_callback_of_a_chord_are_held(place: Place) -> None:
    canvas = Canvas(place.stem)
    async with place.stem:
        later = place.then.s().with_options(countdown=30)
        chain = await canvas.chain([place.first.s(), later])
        await is_held_for_30_s(place, "then", times=2, waiting=2)
        assert await chain.result(timeout=5) == ["a value"]
        chord = await canvas.chord([place.first.s(), place.first.s()], later)
        await is_held_for_30_s(place, "then", times=2, waiting=3)
        assert await chord.result(timeout=5) == [["a value", "a value"]]


async def test_a_member_is_held_from_its_enqueue_on(place: Place) -> None:
    async with place.stem:
        group = await Canvas(place.stem).group([place.first.s().with_options(countdown=30)])
        place.clock.advance(10)
        async with Worker(place.stem, clock=place.clock, wait=0.01) as worker:
            await place.held(worker, 2, waiting=2)  # and the deadline of the group
            place.clock.advance(20)
            async for each in group.results(timeout=5):
                assert each.value == "a value"
        assert len(place.ran) == 1


async def test_what_a_task_submits_is_held_from_then_on(place: Place) -> None:
    later = place.then.s().with_options(countdown=30)

    @place.stem.task(name="submits")
    async def submits() -> str:
        chain = await Canvas(place.stem).chain([later])
        place.clock.advance(20)
        return chain.task.id

    async with place.stem, Worker(place.stem, clock=place.clock, wait=0.01) as worker, asyncio.timeout(20):
        step = await (await submits.enqueue()).result()
        await place.held(worker, 1)
        assert place.ran == []
        place.clock.advance(10)
        await place.stem.handle(step).result()
        status = await place.stem.handle(step).status()
        assert status is not None
        assert "stem.parentTaskId" in status.meta


async def test_what_waited_longer_than_its_countdown_runs_at_once(place: Place) -> None:
    link = place.then.s().with_options(countdown=30, queue="busy")
    async with place.stem:
        await place.first.with_options(link=[link]).enqueue()
        await Worker(place.stem, clock=place.clock).run(until_empty=True)
        place.clock.advance(31)
        worker = Worker(place.stem, queues="busy", clock=place.clock)
        await worker.run(until_empty=True)
        assert (worker.stats.given_back, worker.stats.succeeded) == (0, 1)


async def test_a_retry_of_a_held_link_is_not_held_again(place: Place) -> None:
    link = place.again.s().with_options(countdown=30)
    async with place.stem:
        await place.first.with_options(link=[link]).enqueue()
        async with Worker(place.stem, clock=place.clock, wait=0.01) as worker:
            await place.held(worker, 1)
            place.clock.advance(30)
            await place.until(lambda: worker.stats.retried)
            place.clock.advance(60)
            await place.until(lambda: worker.stats.succeeded == 2)
            assert worker.stats.given_back == 1


async def test_it_is_held_by_one_worker_after_another_when_the_first_task_is_long_forgotten() -> None:
    place = Place(delay=True, max_delay=10.0)
    link = place.then.si().with_options(countdown=30)
    async with place.stem:
        first = await place.brief.with_options(link=[link]).enqueue()
        for times in range(3):
            async with Worker(place.stem, clock=place.clock, wait=0.01) as worker:
                if times:
                    await place.held(worker, 1)
                else:  # the broker holds it for as long as it can
                    await place.until(lambda: worker.stats.succeeded)
            assert [name for name, _ in place.ran] == ["brief"]
            place.clock.advance(10)
        assert await first.status() is None
        async with Worker(place.stem, clock=place.clock, wait=0.01):
            await place.until(lambda: len(place.ran) == 2)
        assert place.ran[1][1] - place.ran[0][1] == pytest.approx(30.0)


async def test_a_retry_that_comes_before_it_was_asked_for_is_told(caplog: pytest.LogCaptureFixture) -> None:
    place = Place(delay=True, max_delay=10.0)
    async with place.stem:
        await place.again.enqueue("a value")
        async with Worker(place.stem, clock=place.clock, wait=0.01) as worker:
            await place.until(lambda: worker.stats.retried)
            place.clock.advance(10)
            await place.until(lambda: worker.stats.succeeded)
    assert "is tried again after 10 s and not after" in caplog.text


async def test_a_worker_without_a_backend_says_that_it_cannot_hold(caplog: pytest.LogCaptureFixture) -> None:
    place = Place(delay=False)
    async with place.stem:
        link = place.brief.si().with_options(countdown=30)
        envelope, sealed = place.stem.seal_call(link, input=Input(kind="none", task="p"), parent="p")
        await place.stem.broker.publish(
            [message_of(envelope, sealed, place.stem.broker.capabilities, once=True)]
        )
        blind = Stem(place.stem.broker, backend=False, plugins=CATALOGUE, tasks=[place.brief])
        async with blind, Worker(blind, wait=0.01) as worker:
            await place.until(lambda: worker.stats.succeeded)
    assert f"so they run now: ['{envelope.id}']" in caplog.text


async def test_a_deadline_beyond_what_the_broker_can_delay_is_kept() -> None:
    place = Place(delay=True, max_delay=10.0)
    body = [place.first.s(), place.first.s().with_options(queue="nobody's")]
    async with place.stem:
        chord = await Canvas(place.stem).chord(body, place.then.s(), deadline=30)
        async with Worker(place.stem, clock=place.clock, wait=0.01) as worker:
            await place.until(lambda: place.ran)
            for times in (1, 2):
                place.clock.advance(10)
                await place.held(worker, times)
            assert await chord.status() is None
            place.clock.advance(10)
            with pytest.raises(TaskFailed, match="deadline"):
                await chord.result(timeout=5)


async def test_a_deadline_is_held_where_the_broker_cannot_delay(place: Place) -> None:
    body = [place.first.s(), place.first.s().with_options(queue="nobody's")]
    strict = Stem(place.stem.broker, backend=place.stem.backend, plugins=CATALOGUE, strict=True)
    strict.wiring.clock = place.clock
    for stem in (place.stem, strict):
        place.ran.clear()
        async with stem, Worker(place.stem, clock=place.clock, wait=0.01) as worker:
            chord = await Canvas(stem).chord(body, place.then.s(), deadline=30)
            await place.until(lambda: place.ran)
            await place.held(worker, 1)
            place.clock.advance(20)
            await place.held(worker, 1)
            assert await chord.status() is None
            place.clock.advance(10)
            with pytest.raises(TaskFailed, match="deadline"):
                await chord.result(timeout=5)
            assert [name for name, _ in place.ran] == ["first"]


async def test_a_worker_until_empty_leaves_what_is_held_for_later(place: Place) -> None:
    async with place.stem:
        chain = await Canvas(place.stem).chain([place.first.s(), place.then.s()])  # its deadline is in a day
        await place.first.with_options(countdown=3600).enqueue()
        async with asyncio.timeout(10):
            await Worker(place.stem, clock=place.clock).run(until_empty=True)
        assert await chain.result(timeout=5) == ["a value"]
        stats = await place.stem.broker.stats("default")
        assert (stats.ready, stats.scheduled, stats.leased) == (0, 2, 0)


async def test_a_deadline_outlasts_an_outage_of_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(delay=True)
    body = [place.first.s(), place.first.s().with_options(queue="nobody's")]
    backend: Any = place.stem.backend
    close, outages = backend.group_close, [AdapterError("gone"), AdapterError("still gone")]

    async def closed(*arguments: Any) -> Any:
        if outages:
            raise outages.pop()
        return await close(*arguments)

    monkeypatch.setattr(backend, "group_close", closed)
    async with place.stem, asyncio.timeout(20):
        chord = await Canvas(place.stem).chord(body, place.then.s(), deadline=30)
        async with Worker(place.stem, clock=place.clock, wait=0.01) as worker:
            await place.until(lambda: place.ran)
            place.clock.advance(30)
            for times in (1, 2):
                await place.until(lambda: worker.stats.retried + worker.stats.dead_lettered == times)  # noqa: B023
                place.clock.advance(2)
            with pytest.raises(TaskFailed, match="deadline"):
                await chord.result()


async def test_the_hold_is_reported_and_strict_refuses_it(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    link = place.then.s().with_options(countdown=30)
    call = place.first.with_options(link=[link])
    async with place.stem:
        with caplog.at_level(logging.WARNING, "stem"):
            await call.enqueue()
        assert "Task then: countdown=30.0 became 'held by workers'" in caplog.text
        assert place.stem.adjustment_counts == {"countdown": 1}
        strict = Stem(place.stem.broker, backend=place.stem.backend, plugins=CATALOGUE, strict=True)
        with pytest.raises(UnsupportedCapability, match="countdown"):
            await strict.enqueue_call(call.call())
        with pytest.raises(UnsupportedCapability, match="countdown"):
            await place.stem.enqueue_call(call.call(), strict=True)


async def test_a_held_message_can_be_called_off(place: Place) -> None:
    link = place.then.s().with_options(countdown=30, task_id="held")
    async with place.stem:
        await place.first.with_options(link=[link]).enqueue()
        async with Worker(place.stem, clock=place.clock, wait=0.01) as worker:
            await place.held(worker, 1)
            await place.stem.handle("held").revoke()
            place.clock.advance(30)
            with pytest.raises(TaskRevoked):
                await place.stem.handle("held").result(timeout=5)
    assert [name for name, _ in place.ran] == ["first"]
