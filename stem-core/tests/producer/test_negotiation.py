"""What happens to an option when an adapter lacks what it needs: each capability taken away in turn."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from stem_core import (
    Adjustment,
    Canvas,
    Stem,
    TaskEnqueueOptions,
    TaskOptions,
    TaskRetryPolicy,
    UnsupportedCapability,
)
from stem_core.envelope import Envelope

LATER = datetime.now(UTC) + timedelta(days=2)

#: (broker lacks, backend lacks, task options, publish options, adjusted option and effective value)
LACKING: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any], tuple[str, Any]]] = [
    ({"delay": False}, {}, {}, {"countdown": 30}, ("countdown", "held by workers")),
    ({"delay": False}, {}, {}, {"eta": LATER}, ("eta", "held by workers")),
    ({"max_delay": 60.0}, {}, {}, {"countdown": 61}, ("countdown", 60.0)),
    ({"max_delay": 60.0}, {}, {}, {"eta": LATER}, ("eta", 60.0)),
    ({"priority_levels": 1}, {}, {}, {"priority": 9}, ("priority", 0)),
    ({"priority_levels": 3}, {}, {}, {"priority": 9}, ("priority", 2)),
    ({"priority_levels": 3}, {}, {"priority": 4}, {}, ("priority", 1)),
    ({"routing": False}, {}, {}, {"exchange": "events"}, ("exchange", None)),
    ({"routing": False}, {}, {}, {"routing_key": "a"}, ("routing_key", None)),
    ({"routing": False}, {}, {}, {"producer": "p"}, ("producer", None)),
    ({}, {"limiter": False}, {"rate_limit": "1/s"}, {}, ("rate_limit", None)),
    ({}, {"limiter": False}, {"group_rate_limit": "1/s"}, {}, ("group_rate_limit", None)),
    ({}, {"limiter": False}, {"max_concurrency": 2}, {}, ("max_concurrency", None)),
    ({}, {"state": False}, {"max_concurrency": 2}, {}, ("max_concurrency", None)),
    ({}, {"state": False}, {"unique": True}, {}, ("unique", False)),
    ({}, {"ttl": False}, {"result_ttl": 60}, {}, ("result_ttl", None)),
    (
        {"max_delay": 60.0},
        {},
        {"retry_policy": TaskRetryPolicy(default_delay=2, backoff=True, max_retries=9)},
        {},
        ("retry_policy", 60.0),
    ),
]


@pytest.mark.parametrize(("broker", "backend", "task", "publish", "expected"), LACKING)
async def test_adjusted_in_the_open_or_refused_when_strict(
    lab: Any, broker: Any, backend: Any, task: Any, publish: Any, expected: tuple[str, Any]
) -> None:
    here = await lab(broker, backend)
    call: dict[str, Any] = {
        "options": TaskOptions(**task),
        "enqueue_options": TaskEnqueueOptions(**publish),
    }
    handle = await here.stem.enqueue("a", **call)
    (adjustment,) = handle.adjustments
    assert (adjustment.option, adjustment.effective) == expected
    assert adjustment.reason
    assert here.stem.adjustment_counts == {expected[0]: 1}
    published = len(here.broker.published)
    with pytest.raises(UnsupportedCapability, match=expected[0]):
        await here.stem.enqueue("a", **call, strict=True)
    strict = await lab(broker, backend, strict=True)
    with pytest.raises(UnsupportedCapability, match=expected[0]):
        await strict.stem.enqueue("a", **call)
    assert len(here.broker.published) == published
    assert strict.broker.published == []
    await strict.stem.enqueue("a", **call, strict=False)


@pytest.mark.parametrize(("broker", "backend", "task", "publish", "expected"), LACKING)
async def test_nothing_is_adjusted_where_the_adapters_can(
    lab: Any, broker: Any, backend: Any, task: Any, publish: Any, expected: Any
) -> None:
    here = await lab({"routing": True}, {}, strict=True)
    handle = await here.stem.enqueue(
        "a", options=TaskOptions(**task), enqueue_options=TaskEnqueueOptions(**publish)
    )
    assert handle.adjustments == ()
    assert here.stem.adjustment_counts == {}


def opened(lab: Any) -> Envelope:
    ((message,),) = lab.broker.published
    envelope: Envelope = lab.stem.wiring.unseal(message.sealed)
    return envelope


async def test_a_delay_is_kept_for_workers_where_the_broker_has_none(lab: Any) -> None:
    here = await lab({"delay": False})
    await here.stem.enqueue("a", enqueue_options=TaskEnqueueOptions(eta=LATER))
    ((message,),) = here.broker.published
    assert message.not_before is None
    assert opened(here).not_before == LATER


async def test_a_long_delay_goes_as_far_as_the_broker_can(lab: Any) -> None:
    here = await lab({"max_delay": 60.0})
    await here.stem.enqueue("a", enqueue_options=TaskEnqueueOptions(eta=LATER))
    ((message,),) = here.broker.published
    envelope = opened(here)
    assert message.not_before == envelope.enqueued_at + timedelta(seconds=60)
    assert envelope.not_before == LATER


async def test_dropped_limits_are_not_sealed(lab: Any) -> None:
    here = await lab({}, {"limiter": False})
    await here.stem.enqueue("a", options=TaskOptions(rate_limit="1/s"))
    assert opened(here).limits is None


async def test_a_route_travels_where_it_is_understood(lab: Any) -> None:
    here = await lab({"routing": True})
    await here.stem.enqueue("a", enqueue_options=TaskEnqueueOptions(exchange="e", routing_key="k"))
    ((message,),) = here.broker.published
    assert message.route == {"exchange": "e", "routing_key": "k"}


async def test_the_first_of_a_kind_is_logged_and_all_are_counted(
    lab: Any, caplog: pytest.LogCaptureFixture
) -> None:
    here = await lab({"priority_levels": 1, "delay": False})
    with caplog.at_level(logging.WARNING, "stem"):
        for _ in range(3):
            await here.stem.enqueue("a", enqueue_options=TaskEnqueueOptions(priority=5))
        await here.stem.enqueue("a", enqueue_options=TaskEnqueueOptions(priority=6, countdown=1))
    assert [each.getMessage().split("=")[0] for each in caplog.records] == [
        "Task a: priority",
        "Task a: countdown",
    ]
    assert here.stem.adjustment_counts == {"priority": 4, "countdown": 1}


async def test_without_a_backend_what_is_shared_is_adjusted() -> None:
    async with Stem("memory://", backend=False) as stem:
        handle = await stem.enqueue("a", options=TaskOptions(unique=True, rate_limit="1/s"))
        assert {each.option for each in handle.adjustments} == {"unique", "rate_limit"}


async def test_an_adjustment_names_what_was_asked(lab: Any) -> None:
    here = await lab({"priority_levels": 5})
    handle = await here.stem.enqueue("a", enqueue_options=TaskEnqueueOptions(priority=9))
    reason = "the broker has 5 levels; priorities 8, 9 are one"
    assert handle.adjustments == (Adjustment("priority", 9, 4, reason),)


async def test_capabilities_are_data_without_a_connection(lab: Any) -> None:
    stem = Stem("sqlite:///nowhere/at/all.db")
    table = stem.capabilities()
    assert table["broker"]["durable"] is True
    assert table["broker"]["priority_levels"] == 10
    assert table["backend"]["limiter"] is True
    assert "backend" not in Stem("memory://", backend=False).capabilities()


async def test_explain_says_what_would_happen(lab: Any) -> None:
    here = await lab({"delay": False, "priority_levels": 1})

    @here.stem.task(name="mail", queue="mail", max_retries=2, result_encoder="cbor")
    async def mail() -> None: ...

    plan = here.stem.explain("mail", countdown=7200, priority=9, compression="gzip")
    options = {each.option: (each.requested, each.effective) for each in plan.options}
    assert options == {
        "countdown": (7200.0, "held by workers"),
        "priority": (9, 0),
        "compression": ("gzip", "gzip"),
        "queue": ("mail", "mail"),
        "max_retries": (2, 2),
    }
    assert (plan.queue, plan.encoder, plan.result_encoder) == ("mail", "json+gzip", "cbor")
    assert (plan.signed, plan.round_trips) == (False, 2)
    assert here.broker.published == []
    assert here.stem.adjustment_counts == {}


async def test_explain_knows_one_store(stem: Stem) -> None:
    assert stem.explain("a").round_trips == 1


async def test_check_finds_every_task_that_would_be_adjusted_or_refused(lab: Any) -> None:
    here = await lab({"priority_levels": 1}, {"limiter": False})
    here.stem.task(name="fine")(lambda: None)
    here.stem.task(name="fast", rate_limit="1/s", priority=3)(lambda: None)
    here.stem.task(name="odd", args_encoder="yaml")(lambda: None)
    fast, odd = here.stem.check()
    assert fast.task == "fast"
    assert {each.option for each in fast.adjustments} == {"rate_limit", "priority"}
    assert odd.task == "odd"
    assert "No encoder for 'yaml'" in odd.error


async def test_what_links_cannot_have_is_on_the_handle(lab: Any) -> None:
    here = await lab({"priority_levels": 1})

    @here.stem.task(name="then", unique=True, priority=9)
    async def then(value: Any = None) -> None: ...

    after = then.s().with_options(link=[then.si()])
    links = TaskEnqueueOptions(link=[after], link_error=[then.s()])
    plan = here.stem.explain("a", link=[after])
    assert {each.option for each in plan.adjustments} >= {"link.unique", "link.link.priority"}
    assert here.stem.adjustment_counts == {}

    handle = await here.stem.enqueue("a", enqueue_options=links)
    found = {each.option: each.effective for each in handle.adjustments}
    assert found == {
        "link.unique": False,
        "link.priority": 0,
        "link.link.unique": False,
        "link.link.priority": 0,
        "link_error.unique": False,
        "link_error.priority": 0,
    }
    assert here.stem.adjustment_counts == {"unique": 3, "priority": 3}
    published = len(here.broker.published)
    link = then.s().with_options(priority=0)
    with pytest.raises(UnsupportedCapability, match=r"unique=True: .* without taking its lock"):
        await here.stem.enqueue("a", enqueue_options=TaskEnqueueOptions(link=[link]), strict=True)
    assert len(here.broker.published) == published


async def test_what_tasks_of_a_graph_cannot_have_is_on_the_handle() -> None:
    stem = Stem("memory://")

    @stem.task(name="one", unique=True)
    async def one(value: int = 0) -> int:
        return value

    canvas = Canvas(stem)
    async with stem:
        for handle in (
            await canvas.group([one.s(1), one.s(2)]),
            await canvas.chain([one.s(1), one.s()]),
            await canvas.chord([one.s(1)], one.s()),
        ):
            assert [(each.option, each.effective) for each in handle.adjustments] == [("unique", False)]
        assert stem.adjustment_counts == {"unique": 6}
    async with Stem("memory://", tasks=[one], strict=True) as strict:
        with pytest.raises(UnsupportedCapability, match="unique=True"):
            await Canvas(strict).group([one.s(1)])
