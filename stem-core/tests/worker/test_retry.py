"""The pure decisions: whether to try again, after how long; and what a context hands out."""

from __future__ import annotations

import json
import logging
import pickle
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stem_core import TaskContext, TaskRetryPolicy
from stem_core.clock import ManualClock
from stem_core.context import RetryTask, TaskLogFilter, current_task, enter_task
from stem_core.retry import Again, Over, RetryRequest, backoff, class_names, decide

POLICIES = st.builds(
    TaskRetryPolicy,
    backoff=st.booleans(),
    backoff_max=st.none() | st.floats(0, 1e6),
    jitter=st.booleans(),
    default_delay=st.floats(0, 1e6),
)


@given(POLICIES, st.integers(0, 10_000), st.floats(0, 1))
def test_backoff_is_finite_bounded_and_jitters_downwards(
    policy: TaskRetryPolicy, attempt: int, chance: float
) -> None:
    delay = backoff(policy, attempt, chance)
    full = backoff(TaskRetryPolicy(**{**asdict(policy), "jitter": False}), attempt, 0)
    assert 0 <= delay <= full < float("inf")
    assert delay >= full / 2
    if policy.backoff_max is not None:
        assert full <= policy.backoff_max


def asdict(policy: TaskRetryPolicy) -> dict[str, Any]:
    return {name: getattr(policy, name) for name in policy.__struct_fields__}


def test_backoff_doubles() -> None:
    policy = TaskRetryPolicy(backoff=True, default_delay=2, jitter=False, backoff_max=20)
    assert [backoff(policy, n, 0) for n in range(5)] == [2, 4, 8, 16, 20]


class Custom(LookupError):
    """A class of this module."""


@pytest.mark.parametrize(
    ("wanted", "matched"),
    [
        ((Custom,), True),
        ((LookupError,), True),
        (("LookupError",), True),
        (("builtins.LookupError",), True),
        ((f"{__name__}.Custom",), True),
        (("Custom",), False),
        ((KeyError,), False),
    ],
)
def test_classes_and_names_match_subclasses(wanted: tuple[Any, ...], matched: bool) -> None:
    policy = TaskRetryPolicy(auto_retry_for=wanted)
    names = class_names(Custom())
    verdict = decide(names, attempt=0, max_retries=1, policy=policy, request=None, random=0)
    assert verdict == (Again(0.0) if matched else Over("rejected"))


def test_a_request_passes_over_the_classes_but_not_over_the_limit() -> None:
    policy = TaskRetryPolicy(dont_auto_retry_for=(LookupError,), default_delay=9, jitter=False, max_retries=2)
    names, request = class_names(Custom()), RetryRequest(4.0)
    assert decide(names, attempt=1, max_retries=0, policy=policy, request=request, random=0) == Again(4.0)
    last = decide(names, attempt=2, max_retries=9, policy=policy, request=request, random=0)
    assert last == Over("max-retries-exhausted")
    mine = RetryRequest(None, TaskRetryPolicy(default_delay=3, jitter=False))
    assert decide(names, attempt=0, max_retries=1, policy=policy, request=mine, random=0) == Again(3.0)


class Untouched:
    """Controls that nothing may reach."""

    progress = extend_lease = None


def context(**fields: Any) -> TaskContext:
    controls: Any = Untouched()
    return TaskContext(**{"id": "t1", "name": "n", "queue": "q", "controls": controls, **fields})


def test_retry_requests() -> None:
    clock = ManualClock()
    ctx = context(clock=clock)
    assert ctx.retry(countdown=timedelta(seconds=5)).request == RetryRequest(5.0)
    eta = datetime.fromtimestamp(clock.time(), UTC) + timedelta(seconds=8)
    assert ctx.retry(eta=eta).request == RetryRequest(8.0)
    assert ctx.retry(eta=eta - timedelta(hours=1)).request == RetryRequest(0.0)
    assert ctx.retry().request == RetryRequest()
    with pytest.raises(ValueError, match="-1"):
        ctx.retry(countdown=-1)
    with pytest.raises(ValueError, match="time zone"):
        ctx.retry(eta=datetime(2030, 1, 1))  # noqa: DTZ001 - what is refused
    copy = pickle.loads(pickle.dumps(ctx.retry(countdown=2)))
    assert isinstance(copy, RetryTask)
    assert copy.request == RetryRequest(2.0)


async def test_progress_and_leases_are_checked_before_anything_is_asked() -> None:
    with pytest.raises(ValueError, match="101"):
        await context().progress(101)
    with pytest.raises(ValueError, match="0"):
        await context().extend_lease(0)


def test_a_task_s_log_carries_its_id_and_attempt(caplog: pytest.LogCaptureFixture) -> None:
    ctx = context(attempt=3)
    with caplog.at_level(logging.INFO, logger="stem.task"):
        ctx.log.info("hello %s", "you", extra={"mine": 1})
    (record,) = caplog.records
    fields = {name: record.__dict__[name] for name in ("task_id", "task_name", "queue", "attempt", "mine")}
    assert json.dumps(fields) == '{"task_id": "t1", "task_name": "n", "queue": "q", "attempt": 3, "mine": 1}'


async def test_the_filter_marks_the_records_of_any_logger() -> None:
    record = logging.makeLogRecord({"msg": "from a library"})
    assert TaskLogFilter().filter(record)
    assert record.__dict__["task_id"] is None
    enter_task(context(attempt=2))  # this test has a context of its own
    record = logging.makeLogRecord({"msg": "from a library"})
    assert TaskLogFilter().filter(record)
    assert (record.__dict__["task_id"], record.__dict__["attempt"]) == ("t1", 2)
    assert current_task() is not None
