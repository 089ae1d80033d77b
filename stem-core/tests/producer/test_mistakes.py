"""What people get wrong: the error names the value, what was expected, and the way out; nothing is published."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from datetime import datetime
from typing import Any

import pytest

from stem_core import ConfigurationError, Stem, TaskEnqueueOptions, TaskMetadata, TaskOptions, TaskRetryPolicy
from stem_core.options import UNSET

NAIVE = datetime(2030, 1, 1)  # noqa: DTZ001
#: Values of many types, among them the ones that only look like a number or a duration.
ODD: tuple[Any, ...] = ("x", True, 1.5, b"x", [], {}, object, float("nan"), float("inf"), 10**30, -1, NAIVE)
#: Fields in which anything may be.
ANYTHING = {"publish_connection", "link", "link_error", "args_encoder", "result_encoder"}
#: What is right of ODD, by field.
TEXTS = {
    "queue", "group_rate_key_header", "task_id", "exchange", "routing_key", "producer", "serializer",
    "compression", "shadow", "reply_to", "description",
}  # fmt: skip
FLAGS = {"unique", "acks_late", "ignore_result", "add_to_parent", "retry", "backoff", "jitter", "idempotent"}
DURATIONS = {
    "soft_time_limit", "hard_time_limit", "visibility_timeout", "result_ttl", "countdown", "expires", "time_limit",
    "backoff_max", "default_delay",
}  # fmt: skip
RIGHT = (
    {(name, "'x'") for name in {*TEXTS, "auto_retry_for", "dont_auto_retry_for"}}
    | {(name, "True") for name in FLAGS}
    | {(name, "1.5") for name in DURATIONS}
    | {(name, "[]") for name in ("tags", "auto_retry_for", "dont_auto_retry_for")}
    | {(name, "{}") for name in ("attributes", "auto_retry_for", "dont_auto_retry_for")}
)
KINDS = (TaskOptions, TaskEnqueueOptions, TaskMetadata, TaskRetryPolicy)
FIELDS = [
    (kind, name)
    for kind in KINDS
    for name in getattr(kind, "__struct_fields__", None) or [each.name for each in dataclasses.fields(kind)]  # type: ignore[arg-type]
    if name not in ANYTHING
]


@pytest.mark.parametrize(("kind", "name"), FIELDS, ids=lambda given: getattr(given, "__name__", given))
def test_a_field_of_the_wrong_type_is_refused_by_its_name(kind: Any, name: str) -> None:
    for value in ODD:
        if (name, repr(value)) in RIGHT:
            kind(**{name: value})
            continue
        with pytest.raises((TypeError, ValueError)) as caught:
            kind(**{name: value})
        assert name in str(caught.value), (value, caught.value)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"quee": "mail"}, "has no 'quee'; did you mean 'queue'"),
        ({"count_down": 3}, "did you mean 'countdown'"),
        ({"delay": 3}, "write countdown="),
        ({"max_retries": 3}, r"TaskRetryPolicy\(max_retries="),
        ({"unique": True}, r"@stem.task\(unique="),
        ({"headers": {"a": "b"}}, "beside the options"),
        ({"zzz": 1}, "it has add_to_parent, compression, countdown"),
    ],
)
def test_an_unknown_option_of_a_publish(stem: Stem, asked: dict[str, Any], words: str) -> None:
    task = stem.task(name="work")(lambda: None)
    for ask in (TaskEnqueueOptions, task.with_options, task.builder().options, task.s().with_options):
        with pytest.raises(TypeError, match=words):
            ask(**asked)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"max_retry": 3}, "did you mean 'max_retries'"),
        ({"countdown": 3}, r"task.with_options\(countdown="),
        ({"time_limit": 3}, "hard_time_limit="),
    ],
)
def test_an_unknown_option_of_a_task(stem: Stem, asked: dict[str, Any], words: str) -> None:
    for ask in (TaskOptions, lambda **given: stem.task(name="work", **given)(lambda: None)):
        with pytest.raises(TypeError, match=words):
            ask(**asked)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"options": 5}, "options=5 must be a TaskOptions"),
        ({"options": TaskEnqueueOptions()}, "must be a TaskOptions"),
        ({"metadata": {"tags": ["a"]}}, "must be a TaskMetadata"),
    ],
)
def test_what_a_declaration_takes_for_its_options(stem: Stem, given: dict[str, Any], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        stem.task(name="work", **given)(lambda: None)


def test_a_wrong_value_of_a_declaration_names_the_task(stem: Stem) -> None:
    for field, value in (("priority", True), ("tags", "slow"), ("result_ttl", "1h"), ("unique_for", 5)):
        with pytest.raises(ConfigurationError, match=f"Task 'work': {field}="):
            stem.task(name="work", **{field: value})(lambda: None)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"headers": ["tenant"]}, r"headers=\['tenant'\] must be a mapping"),
        ({"headers": "tenant"}, "headers='tenant' must be a mapping"),
        ({"headers": [("tenant", "acme")]}, "must be a mapping"),
        ({"headers": {"tenant": 7}}, "header 'tenant'=7 must be text"),
        ({"headers": {"tenant": None}}, "header 'tenant'=None must be text"),
        ({"headers": {7: "acme"}}, "headers has the key 7"),
        ({"meta": ["by"]}, r"meta=\['by'\] must be a mapping"),
        ({"meta": 5}, "meta=5 must be a mapping"),
        ({"meta": {1: 2}}, "meta has the key 1"),
        ({"meta": {"a\n": 2}}, "printable"),
        ({"options": {"queue": "mail"}}, r"write options=TaskOptions\(...\)"),
        ({"enqueue_options": {"countdown": 5}}, r"write enqueue_options=TaskEnqueueOptions\(...\)"),
        ({"enqueue_options": TaskOptions()}, r"^enqueue_options=.{10,130} must be a TaskEnqueueOptions"),
    ],
)
async def test_what_goes_with_a_call(stem: Stem, given: dict[str, Any], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        await stem.enqueue("work", **given)
    assert (await stem.broker.stats("default")).ready == 0


def test_labels_of_a_builder(stem: Stem) -> None:
    builder = stem.task(name="work")(lambda: None).builder()
    for label, words in (
        (lambda: builder.header("tenant", 7), "header 'tenant'=7"),  # type: ignore[arg-type]
        (lambda: builder.headers(["tenant"]), "must be a mapping"),  # type: ignore[arg-type]
        (lambda: builder.meta(7, "x"), "the key 7"),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError, match=words):
            label()


async def test_a_timeout_that_is_no_duration(stem: Stem) -> None:
    handle = await stem.enqueue("work")
    with pytest.raises(TypeError, match="'5' is not a duration; give seconds or a timedelta"):
        await handle.result(timeout="5")  # type: ignore[arg-type]


def test_options_are_values_as_before() -> None:
    options = TaskEnqueueOptions(countdown=5, queue="mail")
    for same in (copy.copy(options), pickle.loads(pickle.dumps(options)), dataclasses.replace(options)):
        assert same == options
    assert options.merged(TaskEnqueueOptions(queue="late")) == TaskEnqueueOptions(countdown=5, queue="late")
    assert options.eta is UNSET
    assert TaskMetadata(tags=["a", "b"]).tags == ("a", "b")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("declare", "error", "words"),
    [
        (lambda task: task("work"), TypeError, r"keyword: @stem.task\(name='work'\)"),
        (lambda task: task(5), TypeError, "5 is not a function"),
        (lambda task: task(print, len), TypeError, "decorates one function, and was given 2"),
        (lambda task: task(dict), ConfigurationError, "no signature found"),
        (lambda task: task(name="")(print), ConfigurationError, "'' cannot be a task name"),
        (lambda task: task(name=5)(print), ConfigurationError, "5 cannot be a task name"),
    ],
)
def test_what_is_no_task(stem: Stem, declare: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        declare(stem.task)
    assert not stem.tasks


def test_a_function_and_its_options_in_one_call(stem: Stem) -> None:
    task = stem.task(lambda: None, name="work", queue="mail")  # type: ignore[call-overload]
    assert (task.name, task.options.queue) == ("work", "mail")
