"""Values check what they are given and survive a process boundary."""

from __future__ import annotations

import inspect
import pickle
import re
from datetime import UTC, datetime, timedelta

import pytest

from stem_core import errors
from stem_core.clock import ManualClock, instant, seconds
from stem_core.envelope import new_id
from stem_core.options import (
    UNSET,
    TaskEnqueueOptions,
    TaskOptions,
    TaskRetryPolicy,
    check_id,
    check_name,
    parse_rate,
)
from stem_core.url import mask, query_of, scheme_of

EVERY_ERROR = [
    each for _, each in inspect.getmembers(errors, inspect.isclass) if each.__module__ == errors.__name__
]


@pytest.mark.parametrize("kind", EVERY_ERROR, ids=lambda kind: kind.__name__)
def test_every_error_pickles_with_all_it_holds(kind: type[errors.StemError]) -> None:
    made = kind("id", "ValueError", "no", "tb") if kind is errors.TaskFailed else kind("what happened")
    again = pickle.loads(pickle.dumps(made))
    assert (type(again), str(again), vars(again)) == (kind, str(made), vars(made))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: TaskOptions(priority=10), "priority=10"),
        (lambda: TaskOptions(max_retries=-1), "max_retries=-1"),
        (lambda: TaskOptions(rate_limit="fast"), "rate_limit='fast'"),
        (lambda: TaskOptions(group_rate_limit="0/s"), "group_rate_limit='0/s'"),
        (lambda: TaskOptions(isolation="fibre"), "isolation='fibre'"),
        (lambda: TaskOptions(acks_late=False, max_retries=1), "acks_late=False"),
        (lambda: TaskOptions(hard_time_limit=0), "hard_time_limit=0"),
        (lambda: TaskOptions(max_concurrency=0), "max_concurrency=0"),
        (lambda: TaskEnqueueOptions(eta=datetime(2024, 1, 1)), "no time zone"),  # noqa: DTZ001
        (lambda: TaskEnqueueOptions(expires=datetime(2024, 1, 1)), "no time zone"),  # noqa: DTZ001
        (lambda: TaskEnqueueOptions(countdown=-1), "countdown=-1"),
        (lambda: TaskEnqueueOptions(priority=-1), "priority=-1"),
        (lambda: TaskEnqueueOptions(task_id="two words"), "'two words'"),
        (lambda: TaskOptions(queue=""), "queue name"),
        (lambda: TaskOptions(unique_for=60), "unique_for=60.0 does nothing without unique"),
        (lambda: TaskOptions(concurrency_key="printer"), "without max_concurrency"),
        (lambda: TaskEnqueueOptions(countdown=1e12), "a century"),
        (lambda: TaskRetryPolicy(max_retries=-1), "max_retries=-1"),
        (lambda: TaskRetryPolicy(default_delay=float("nan")), "default_delay=nan"),
        (lambda: check_id("é"), "'é'"),
        (lambda: check_name("a\nb", "queue"), "queue"),
        (lambda: parse_rate("10/y"), "'10/s'"),
    ],
)
def test_bad_options_name_the_value(make, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        make()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: TaskOptions(max_retries=1.5), "max_retries=1.5 must be a whole number"),
        (lambda: TaskOptions(priority=True), "priority=True"),
        (lambda: TaskOptions(acks_late=0), "acks_late=0 must be True or False"),
        (lambda: TaskOptions(rate_limit=10), "rate_limit=10"),
        (lambda: TaskOptions(unique=True, unique_key=7), "unique_key=7"),
        (lambda: TaskOptions(retry_policy={"max_retries": 3}), "must be a TaskRetryPolicy"),
        (lambda: TaskEnqueueOptions(shadow=5), "shadow=5"),
        (lambda: TaskEnqueueOptions(ignore_result=None), "ignore_result=None"),
        (lambda: TaskEnqueueOptions(expires="soon"), "expires='soon'"),
        (lambda: TaskEnqueueOptions(eta="2026-01-01"), "eta='2026-01-01'"),
        (lambda: TaskEnqueueOptions(countdown="30"), "countdown='30'"),
        (lambda: TaskRetryPolicy(backoff=2), "backoff=2"),
        (lambda: TaskRetryPolicy(auto_retry_for=(7,)), "auto_retry_for: 7 is neither"),
    ],
)
def test_options_of_another_type_are_refused_before_they_are_sealed(make, words: str) -> None:
    # Sealed, they would make a message that the worker puts aside as unreadable.
    with pytest.raises(TypeError, match=re.escape(words)):
        make()


def test_one_exception_class_or_name_stands_for_itself() -> None:
    policy = TaskRetryPolicy(auto_retry_for="ValueError", dont_auto_retry_for=KeyError)  # type: ignore[arg-type]
    assert (policy.auto_retry_for, policy.dont_auto_retry_for) == (("ValueError",), ("builtins.KeyError",))


def test_durations_are_kept_in_seconds_and_classes_by_name() -> None:
    policy = TaskRetryPolicy(default_delay=timedelta(minutes=1), auto_retry_for=(ValueError, "a.B"))
    assert (policy.default_delay, policy.auto_retry_for) == (60.0, ("builtins.ValueError", "a.B"))
    assert TaskOptions(hard_time_limit=timedelta(seconds=2)).hard_time_limit == 2.0


def test_merging_takes_what_is_given_even_none() -> None:
    base = TaskEnqueueOptions(queue="a", time_limit=5, shadow="s")
    merged = base.merged(TaskEnqueueOptions(time_limit=None, priority=0))
    assert (merged.queue, merged.time_limit, merged.priority, merged.shadow) == ("a", None, 0, "s")
    assert merged.eta is UNSET


def test_ids_are_uuid7_and_ascend_with_time() -> None:
    made = [new_id() for _ in range(1000)]
    assert len(set(made)) == 1000
    assert all(each[14] == "7" and each[19] in "89ab" and len(each) == 36 for each in made)
    assert made[0][:13] <= made[-1][:13]


def test_instants_must_be_aware() -> None:
    assert instant(0.0) == datetime(1970, 1, 1, tzinfo=UTC)
    assert seconds(timedelta(minutes=1)) == 60.0
    with pytest.raises(ValueError, match="time zone"):
        instant(datetime(2024, 1, 1))  # noqa: DTZ001


def test_a_manual_clock_rings_due_alarms_in_order() -> None:
    clock = ManualClock()
    rung: list[str] = []
    clock.wake_at(clock.time() + 2, lambda: rung.append("b"))
    clock.wake_at(clock.time() + 1, lambda: rung.append("a"))
    cancel = clock.wake_at(clock.time() + 1, lambda: rung.append("never"))
    cancel()
    clock.advance(0.5)
    assert rung == []
    clock.advance(1.5)
    assert rung == ["a", "b"]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:pa:ss@host:1/0", "redis://user:***@host:1/0"),
        ("postgresql://u@h/db?password=x&schema=s", "postgresql://u@h/db?password=***&schema=s"),
        ("sqlite:///a.db", "sqlite:///a.db"),
        ("memory://", "memory://"),
        ("unix:///run/redis.sock?password=x&db=1", "unix:///run/redis.sock?password=***&db=1"),
        ("sqlite:///a@b.db?synchronous=normal", "sqlite:///a@b.db?synchronous=normal"),
        ("redis://user:pa@ss@host/0", "redis://user:***@host/0"),
        ("redis://user:pa/ss@host/0", "redis://***@host/0"),
        ("redis://user:pa#s?s@host", "redis://***@host"),
        ("redis://user:pa@s/s@host/0", "redis://***@host/0"),
        ("user:secret@host:6379/0", "user:***@host:6379/0"),  # somebody forgot the scheme
        ("http://[::1", "http://***"),
    ],
)
def test_a_shown_url_holds_no_password(url: str, shown: str) -> None:
    assert mask(url) == shown


def test_a_url_without_a_scheme_says_what_one_looks_like() -> None:
    assert (scheme_of("Redis://x"), query_of("a://b?c=d&c=e")) == ("redis", {"c": "e"})
    with pytest.raises(errors.ConfigurationError, match="sqlite:///"):
        scheme_of("just-a-name")
