"""``FakeStem``: what it records, what it matches, and that the Stem it stood in for is itself again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from stem_core import (
    ConfigurationError,
    PayloadTooLarge,
    Stem,
    TaskContext,
    TaskEnqueueOptions,
    TaskOptions,
    UnsupportedCapability,
)
from stem_core.testing import FakeStem


@dataclass
class Order:
    number: int
    tags: tuple[str, ...] = ()


def shop() -> Stem:
    # Never connected to: nothing listens on port 1.
    return Stem("redis://localhost:1/0", namespace="shop")


async def test_calls_are_recorded_with_their_options_in_order() -> None:
    stem = shop()

    @stem.task(name="mail.send", queue="mail")
    async def send(to: str, *, copies: int = 1) -> None: ...

    async with FakeStem(stem) as fake:
        handle = await send.with_options(priority=7, countdown=60).enqueue("a@example.com", copies=2)
        await stem.enqueue("elsewhere.task", args=[1, "x"], headers={"tenant": "acme"}, meta={"by": "me"})
        await stem.enqueue_many([send.call("b@example.com"), send.call("c@example.com")])
    first, second, *rest = fake.calls
    assert (first.id, first.name, first.args, first.kwargs) == (
        handle.id,
        "mail.send",
        ("a@example.com",),
        {"copies": 2},
    )
    assert (first.queue, first.priority) == ("mail", 7)
    assert first.not_before is not None
    assert first.not_before - datetime.now(UTC) > timedelta(seconds=50)
    assert (second.args, second.headers, second.meta) == ((1, "x"), {"tenant": "acme"}, {"by": "me"})
    assert [each.args for each in rest] == [("b@example.com",), ("c@example.com",)]


async def test_arguments_match_by_name_position_and_form() -> None:
    stem = shop()

    @stem.task(name="orders.ship")
    def ship(ctx: TaskContext, order: Order, when: datetime, *, fast: bool = False) -> None: ...

    now = datetime.now(UTC)
    async with FakeStem(stem) as fake:
        await ship.enqueue(Order(7, ("gift",)), now, fast=True)
    call = fake.assert_enqueued(ship, order=Order(7, ("gift",)), fast=True)
    assert fake.assert_enqueued("orders.ship", {"number": 7, "tags": ["gift"]}) == call
    assert fake.assert_enqueued("orders.ship", when=now) == call
    assert fake.assert_enqueued("orders.ship") == call
    fake.assert_not_enqueued(ship, order=Order(8))
    with pytest.raises(AssertionError, match=r"(?s)orders\.ship\(order=.*was not enqueued.*orders\.ship\("):
        fake.assert_enqueued(ship, order=Order(8))
    with pytest.raises(AssertionError, match="was enqueued"):
        fake.assert_not_enqueued(ship, fast=True)
    with pytest.raises(AssertionError, match="nosuch"):
        fake.assert_enqueued("nosuch")


def test_sync_code_is_recorded_without_a_loop() -> None:
    stem = shop()

    @stem.task(name="mail.send")
    def send(to: str) -> None: ...

    with FakeStem(stem) as fake:
        handle = send.enqueue_sync("a@example.com")
        status = handle.status_sync()
        assert status is not None
        assert status.state == "queued"
    fake.assert_enqueued("mail.send", to="a@example.com")


async def test_the_stem_is_itself_again_and_fakes_nest() -> None:
    stem = shop()
    before = stem.broker
    async with FakeStem(stem) as outer:
        await stem.enqueue("one")
        async with FakeStem(stem) as inner:
            await stem.enqueue("two")
        await stem.enqueue("three")
        assert [each.name for each in inner.calls] == ["two"]
    assert [each.name for each in outer.calls] == ["one", "three"]
    assert stem.broker is before
    outer.clear()
    assert outer.calls == []


async def test_it_plans_as_the_broker_it_stands_in_for() -> None:
    stem = shop()
    async with FakeStem(stem) as fake:
        handle = await stem.enqueue("routed", enqueue_options=TaskEnqueueOptions(exchange="x"))
        assert [each.option for each in handle.adjustments] == ["exchange"]
        with pytest.raises(PayloadTooLarge):
            await stem.enqueue("large", args=["x" * 300_000])
        with pytest.raises(ValueError, match="priority"):
            await stem.enqueue("urgent", options=TaskOptions(priority=11))
    assert [each.name for each in fake.calls] == ["routed"]


async def test_an_id_given_twice_is_enqueued_once() -> None:
    async with FakeStem() as fake:
        for _ in range(2):
            await fake.enqueue("one", enqueue_options=TaskEnqueueOptions(task_id="same"))
        assert [each.id for each in fake.calls] == ["same"]


async def test_alone_it_is_a_stem_to_hand_to_the_code_under_test() -> None:
    fake = FakeStem()
    async with fake:
        await fake.enqueue("tasks.email", args={"to": "ops@example.com"})
    fake.assert_enqueued("tasks.email", to="ops@example.com")


async def test_handed_to_the_code_under_test_it_routes_and_refuses_as_its_stem() -> None:
    stem = Stem(
        "redis://localhost:1/0", routing={"routes": [{"task": "mail.*", "queue": "mail"}]}, strict=True
    )
    stem.task(name="mail.send", priority=5)(lambda to: None)
    fake = FakeStem(stem)
    await fake.enqueue("mail.send", {"to": "ada@example.com"})
    call = fake.assert_enqueued("mail.send", to="ada@example.com")
    assert (call.queue, call.priority) == ("mail", 5)
    with pytest.raises(UnsupportedCapability):
        await fake.enqueue("mail.send", ["x"], enqueue_options=TaskEnqueueOptions(routing_key="mail.out"))


async def test_without_a_backend_it_refuses_what_the_stem_would() -> None:
    stem = Stem("memory://", backend=False)
    note = stem.task(name="note")(lambda *about: None)
    once = stem.task(name="once", unique=True)(lambda: None)
    async with FakeStem(stem) as fake:
        with pytest.raises(ConfigurationError, match="this Stem has none"):
            await note.with_options(link=[note.s()]).enqueue()
        assert [each.option for each in (await once.enqueue()).adjustments] == ["unique"]
    assert [each.name for each in fake.calls] == ["once"]
