"""Every option of one publish, on memory and SQLite, async and sync: what is sealed, and what the broker is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from stem_core import (
    ConfigurationError,
    PublishError,
    Signature,
    Stem,
    TaskEnqueueOptions,
    TaskOptions,
    TaskRetryPolicy,
    TaskState,
    UnsupportedCapability,
)
from stem_core.context import TaskContext, enter_task
from stem_core.envelope import Envelope, Input, Message
from stem_core.options import UNSET, Adjustment

SOON = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
FAST = TaskRetryPolicy(default_delay=1, max_retries=7, backoff=True)


def seconds_from(envelope: Envelope, instant: datetime | None) -> float:
    assert instant is not None
    return (instant - envelope.enqueued_at).total_seconds()


Check = Callable[[Envelope, Message], Any]

#: name of the case: (what the publish asks, what must be true, options that are adjusted)
CASES: dict[str, tuple[dict[str, Any], Check, set[str]]] = {
    "nothing": ({}, lambda e, m: e.queue == "default" and e.not_before is None and not m.once, set()),
    "task_id": ({"task_id": "order-7"}, lambda e, m: (e.id, m.id, m.once) == ("order-7", "order-7", True), set()),
    "eta": ({"eta": SOON}, lambda e, m: e.not_before == m.not_before == SOON, set()),
    "countdown": ({"countdown": 30}, lambda e, m: seconds_from(e, e.not_before) == 30 and m.not_before == e.not_before, set()),
    "countdown as timedelta": ({"countdown": timedelta(minutes=2)}, lambda e, m: seconds_from(e, e.not_before) == 120, set()),
    "eta beats countdown": ({"eta": SOON, "countdown": 5}, lambda e, m: e.not_before == SOON, set()),
    "no countdown": ({"countdown": None}, lambda e, m: e.not_before is None, set()),
    "expires as instant": ({"expires": SOON}, lambda e, m: e.expires == SOON, set()),
    "expires as seconds": ({"expires": 60}, lambda e, m: seconds_from(e, e.expires) == 60, set()),
    "queue": ({"queue": "critical"}, lambda e, m: (e.queue, m.queue) == ("critical", "critical"), set()),
    "priority": ({"priority": 7}, lambda e, m: (e.priority, m.priority) == (7, 7), set()),
    "exchange": ({"exchange": "events"}, lambda e, m: not e.route and not m.route, {"exchange"}),
    "routing_key": ({"routing_key": "a.b"}, lambda e, m: not e.route, {"routing_key"}),
    "producer": ({"producer": "billing"}, lambda e, m: not e.route, {"producer"}),
    "time_limit": ({"time_limit": 5}, lambda e, m: e.time_limit == 5, set()),
    "soft_time_limit": ({"soft_time_limit": timedelta(seconds=3)}, lambda e, m: e.soft_time_limit == 3, set()),
    "serializer": ({"serializer": "cbor"}, lambda e, m: e.encoder == "cbor", set()),
    "compression": ({"compression": "gzip"}, lambda e, m: e.encoder == "json+gzip", set()),
    "both": ({"serializer": "msgpack", "compression": "gzip"}, lambda e, m: e.encoder == "msgpack+gzip", set()),
    "ignore_result": ({"ignore_result": True}, lambda e, m: e.ignore_result, set()),
    "shadow": ({"shadow": "nightly"}, lambda e, m: e.shadow == "nightly", set()),
    "reply_to": ({"reply_to": "answers"}, lambda e, m: len(e.on_end) == 1, set()),
    "add_to_parent": ({"add_to_parent": False}, lambda e, m: e.parent is None, set()),
    "retry": ({"retry": True}, lambda e, m: m.once, set()),
    "retry with a policy of its own": ({"retry": True, "publish_retry_policy": FAST}, lambda e, m: m.once and e.retry_policy is None, set()),
    "retry_policy": ({"retry_policy": FAST}, lambda e, m: e.retry_policy == FAST and e.max_retries == 7, set()),
    "link": ({"link": [Signature(name="next", args=(1,))]}, lambda e, m: len(e.on_success) == 1, set()),
    "link_error": ({"link_error": Signature(name="oops")}, lambda e, m: len(e.on_failure) == 1, set()),
}  # fmt: skip

REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "publish_connection": ({"publish_connection": object()}, UnsupportedCapability, "transactional_publish"),
    "unknown serializer": ({"serializer": "yaml"}, ConfigurationError, "No encoder for 'yaml'"),
    "compression that compresses nothing": ({"compression": "json"}, ConfigurationError, "value encoder"),
    "unprintable queue": ({"queue": "a\nb"}, ValueError, "queue name"),
    "unprintable reply_to": ({"reply_to": "a\tb"}, ValueError, "reply_to"),
    "priority that is none": ({"priority": None}, TypeError, "priority=None"),
    "unprintable task name": ({"task_id": "x"}, ValueError, "task name"),
    "link that is none": ({"link": ["next"]}, TypeError, "signature"),
    "routing key that is no text": ({"routing_key": 3}, TypeError, "routing_key=3"),
}


def test_every_field_has_a_case() -> None:
    tried = {name for asked, *_ in [*CASES.values(), *REFUSED.values()] for name in asked}
    assert tried == set(TaskEnqueueOptions.__dataclass_fields__)


@pytest.mark.parametrize("case", CASES)
async def test_option(case: str, stem: Stem, way: Any, take: Any) -> None:
    asked, holds, adjusted = CASES[case]
    call = Signature(name="work", args=(1, "two"), enqueue_options=TaskEnqueueOptions(**asked))
    handle = await way(stem, call)
    (status,) = await stem.backend.fetch([handle.id])  # type: ignore[union-attr]
    assert status is not None
    assert (status.state, status.name) == (TaskState.QUEUED, "work")
    assert {each.option for each in handle.adjustments} == adjusted
    delayed = "eta" in asked or asked.get("countdown")
    if delayed:
        assert (await stem.broker.stats("default")).scheduled == 1
        envelope, message = await captured(call)
    else:
        ((delivery, envelope),) = await take(stem, asked.get("queue", "default"))
        message = delivery.message
        assert handle.id == envelope.id == str(handle)
    assert holds(envelope, message), (envelope, message)
    assert envelope.name == "work"


async def captured(call: Signature[Any]) -> tuple[Envelope, Message]:
    """What a Stem publishes for ``call``, without waiting until it is due."""
    stem = Stem("memory://")
    draft = stem._planner.draft(call)
    return stem.wiring.unseal(draft.publish.message.sealed), draft.publish.message


@pytest.mark.parametrize("case", REFUSED)
async def test_refused_option(case: str, stem: Stem, way: Any) -> None:
    asked, error, words = REFUSED[case]
    name = "a\nb" if "task name" in case else "work"
    with pytest.raises(error, match=words):
        await way(stem, Signature(name=name, enqueue_options=TaskEnqueueOptions(**asked)))
    stats = await stem.broker.stats("default")
    assert stats.ready == stats.scheduled == 0


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"eta": datetime(2030, 1, 1)}, "has no time zone"),  # noqa: DTZ001
        ({"expires": datetime(2030, 1, 1)}, "has no time zone"),  # noqa: DTZ001
        ({"countdown": -1}, "countdown=-1"),
        ({"expires": 0}, "expires=0"),
        ({"priority": 10}, "priority=10"),
        ({"task_id": "two words"}, "'two words' is not a task id"),
        ({"task_id": ""}, "not a task id"),
        ({"time_limit": 0}, "time_limit=0"),
    ],
)
def test_values_that_make_no_sense(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TaskEnqueueOptions(**asked)


async def test_not_before_and_what_beats_it(stem: Stem) -> None:
    await stem.enqueue("a", not_before=SOON)
    await stem.enqueue("b", not_before=SOON, enqueue_options=TaskEnqueueOptions(countdown=0))
    stats = await stem.broker.stats("default")
    assert (stats.scheduled, stats.ready) == (1, 1)
    with pytest.raises(ValueError, match="no time zone"):
        await stem.enqueue("c", not_before=datetime(2030, 1, 1))  # noqa: DTZ001


async def test_task_options_are_sealed(stem: Stem, take: Any) -> None:
    options = TaskOptions(
        queue="mail",
        max_retries=3,
        soft_time_limit=1,
        hard_time_limit=2,
        rate_limit="10/s",
        group_rate_limit="5/m",
        rate_limiter_failure_mode="closed",
        max_concurrency=4,
        concurrency_key="smtp",
        priority=5,
        visibility_timeout=60,
        retry_policy=TaskRetryPolicy(default_delay=2),
        ignore_result=True,
        result_ttl=7200,
    )
    await stem.enqueue("send", options=options, headers={"tenant": "acme"})
    ((_, envelope),) = await take(stem, "mail")
    assert (envelope.max_retries, envelope.soft_time_limit, envelope.time_limit) == (3, 1.0, 2.0)
    assert envelope.limits is not None
    assert (envelope.limits.rate_limit, envelope.limits.group_rate_limit) == ("10/s", "5/m")
    assert (envelope.limits.group_rate_key, envelope.limits.rate_limiter_failure_mode) == ("acme", "closed")
    assert (envelope.limits.max_concurrency, envelope.limits.concurrency_key) == (4, "smtp")
    assert (envelope.priority, envelope.visibility_timeout, envelope.result_ttl) == (5, 60.0, 7200.0)
    assert envelope.ignore_result
    assert envelope.retry_policy == TaskRetryPolicy(default_delay=2)


async def test_an_option_of_the_publish_beats_the_task_and_can_unset_it(stem: Stem, take: Any) -> None:
    policy = TaskRetryPolicy(default_delay=9, max_retries=9)
    options = TaskOptions(
        queue="slow", priority=8, soft_time_limit=5, retry_policy=policy, ignore_result=True, max_retries=2
    )
    over = TaskEnqueueOptions(
        queue="default", priority=0, soft_time_limit=None, retry_policy=None, ignore_result=False
    )
    await stem.enqueue("a", options=options, enqueue_options=over)
    ((_, envelope),) = await take(stem)
    assert (envelope.priority, envelope.soft_time_limit, envelope.retry_policy) == (0, None, None)
    assert not envelope.ignore_result
    assert envelope.max_retries == 2


async def test_max_retries_by_rank(stem: Stem, take: Any) -> None:
    task = TaskOptions(max_retries=1, retry_policy=TaskRetryPolicy(max_retries=2))
    await stem.enqueue("a", options=task)
    await stem.enqueue("a", options=task, enqueue_options=TaskEnqueueOptions(retry_policy=FAST))
    await stem.enqueue("a", options=TaskOptions(max_retries=1))
    assert [envelope.max_retries for _, envelope in await take(stem)] == [2, 7, 1]


async def test_acks_early_cannot_be_retried(stem: Stem) -> None:
    with pytest.raises(ValueError, match="acks_late=False with 7 retries"):
        await stem.enqueue(
            "a", options=TaskOptions(acks_late=False), enqueue_options=TaskEnqueueOptions(retry_policy=FAST)
        )


async def test_links_are_sealed_as_derived_messages(stem: Stem, take: Any) -> None:
    @stem.task(name="parent", queue="p")
    async def parent(x: int) -> int:
        return x

    @stem.task(name="child", queue="c")
    async def child(got: int, more: int) -> int:
        return got + more

    @stem.task(name="other")
    async def other() -> None: ...

    linked = child.s(5).with_options(countdown=4, link=[other.si()])
    handle = await parent.with_options(
        link=[linked, other.si()], link_error=child.s(1), reply_to="r"
    ).enqueue(1)
    ((_, envelope),) = await take(stem, "p")
    first, second = [stem.wiring.unseal(each) for each in envelope.on_success]
    assert first.input == Input(kind="one", task=handle.id)
    assert (first.name, first.queue, first.delay, first.not_before) == ("child", "c", 4.0, None)
    assert (first.parent, first.root) == (handle.id, handle.id)
    (nested,) = [stem.wiring.unseal(each) for each in first.on_success]
    assert (nested.name, nested.parent, nested.root) == ("other", first.id, handle.id)
    assert second.input == Input(kind="none", task=handle.id)
    (failure,) = [stem.wiring.unseal(each) for each in envelope.on_failure]
    assert failure.input == Input(kind="error", task=handle.id)
    (reply,) = [stem.wiring.unseal(each) for each in envelope.on_end]
    assert (reply.name, reply.queue, reply.input) == ("stem.reply", "r", Input(kind="reply", task=handle.id))
    assert len({envelope.id, first.id, second.id, nested.id, failure.id, reply.id}) == 6


async def test_a_call_by_name_goes_as_its_task_says_where_that_is_known(stem: Stem, take: Any) -> None:
    @stem.task(name="known", queue="own", priority=4, result_encoder="json")
    async def known() -> int:
        return 1

    handles = [
        await stem.enqueue("known"),
        await stem.enqueue_call(Signature[Any](name="known")),
        *await stem.enqueue_many([Signature[Any](name="known")]),
    ]
    found = [envelope for _, envelope in await take(stem, "own")]
    assert [(each.priority, each.result_encoder) for each in found] == [(4, "json")] * 3
    assert {each.result_type for each in handles} == {int}
    assert stem.seal_call(Signature[Any](name="known"))[0].queue == "own"
    linked = Signature[Any](name="a", enqueue_options=TaskEnqueueOptions(link=[Signature[Any](name="known")]))
    await stem.enqueue_call(linked)
    ((_, envelope),) = await take(stem)
    assert stem.wiring.unseal(envelope.on_success[0]).queue == "own"
    (handle,) = await stem.enqueue_many([Signature[Any](name="known", options=TaskOptions(queue="other"))])
    ((_, envelope),) = await take(stem, "other")
    assert (handle.id, envelope.priority, envelope.result_encoder) == (envelope.id, 0, "json")


async def test_a_link_must_fit_with_its_input(stem: Stem) -> None:
    @stem.task
    async def none_at_all() -> None: ...

    with pytest.raises(TypeError, match="none_at_all"):
        await none_at_all.with_options(link=[none_at_all.s()]).enqueue()


@pytest.mark.parametrize(
    "asked", [{"link": Signature(name="x")}, {"link_error": Signature(name="x")}, {"reply_to": "q"}]
)
async def test_an_input_needs_a_backend(asked: dict[str, Any]) -> None:
    async with Stem("memory://", backend=False) as stem:
        with pytest.raises(ConfigurationError, match="backend"):
            await stem.enqueue("a", enqueue_options=TaskEnqueueOptions(**asked))


async def test_lineage_follows_the_running_task(stem: Stem, take: Any) -> None:
    context = TaskContext(id="child", name="c", queue="q", root="grandparent", controls=None)  # type: ignore[arg-type]
    enter_task(context)
    await stem.enqueue("a")
    await stem.enqueue("b", enqueue_options=TaskEnqueueOptions(add_to_parent=False))
    (_, a), (_, b) = await take(stem)
    assert (a.parent, a.root) == ("child", "grandparent")
    assert (b.parent, b.root) == (None, None)
    (status,) = await stem.backend.fetch([a.id])  # type: ignore[union-attr]
    assert status is not None
    assert status.meta == {"stem.parentTaskId": "child", "stem.rootTaskId": "grandparent"}


async def test_a_task_id_makes_the_publish_idempotent(stem: Stem) -> None:
    first = await stem.enqueue("a", enqueue_options=TaskEnqueueOptions(task_id="once"))
    second = await stem.enqueue("a", enqueue_options=TaskEnqueueOptions(task_id="once"))
    assert first.id == second.id
    assert (await stem.broker.stats("default")).ready == 1


async def test_headers_and_meta(stem: Stem, take: Any) -> None:
    handle = await stem.enqueue(
        "a", args={"to": "x"}, headers={"tenant": "acme"}, meta={"by": "finance", "n": [1, None]}
    )
    ((_, envelope),) = await take(stem)
    assert dict(envelope.headers) == {"tenant": "acme"}
    assert (await handle.status()).meta == {"by": "finance", "n": [1, None]}


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"headers": {"a": 1}}, TypeError, "header 'a'=1"),
        ({"headers": {"a\n": "b"}}, TypeError, "printable"),
        ({"meta": {"a": object()}}, Exception, "cannot be sealed"),
        ({"meta": {"a": {1}}}, Exception, r"cannot be sealed: meta\.a: "),
        ({"countdown": 5}, TypeError, r"enqueue_options=TaskEnqueueOptions\(countdown=\.\.\.\)"),
        ({"to": "Ada"}, TypeError, r"what the task is called with goes into args=\{'to': \.\.\.\}"),
        ({"args": "text"}, TypeError, "args='text'"),
        ({"args": [object()]}, Exception, r"args\[0\]: a value of type object"),
    ],
)
async def test_what_cannot_travel(
    stem: Stem, arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        await stem.enqueue("a", **arguments)
    with pytest.raises(error, match=words):
        await asyncio.to_thread(stem.enqueue_sync, "a", **arguments)
    assert (await stem.broker.stats("default")).ready == 0


async def test_arguments_by_position_and_by_name(stem: Stem, take: Any) -> None:
    await stem.enqueue("a", args=[1, 2])
    await stem.enqueue("a", args={"x": 1})
    await stem.enqueue("a")
    assert [envelope.args for _, envelope in await take(stem)] == [b"[[1,2],{}]", b'[[],{"x":1}]', b"[[],{}]"]


async def test_unknown_parts_of_a_decorator(stem: Stem) -> None:
    with pytest.raises(TypeError, match="is a task already"):
        stem.task(stem.task(name="b")(lambda: None))
    with pytest.raises(TypeError, match="has no 'colour'"):
        stem.task(colour="red")(lambda: None)  # type: ignore[call-overload]
    with pytest.raises(ConfigurationError, match="max_retries=-1"):
        stem.task(name="a", max_retries=-1)(lambda: None)
    stem.task(name="a")(lambda: None)
    with pytest.raises(ConfigurationError, match="Two tasks are called 'a'"):
        stem.task(name="a")(lambda: None)


async def test_over_the_limit(stem: Stem, way: Any) -> None:
    from stem_core import PayloadTooLarge

    with pytest.raises(PayloadTooLarge, match="the limit is"):
        await way(stem, Signature(name="a", args=("x" * 300_000,)))
    assert (await stem.broker.stats("default")).ready == 0


def test_options_are_unset_unless_given() -> None:
    assert all(
        getattr(TaskEnqueueOptions(), name) is UNSET for name in TaskEnqueueOptions.__dataclass_fields__
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"enqueue_options": {"queue": "mail"}}, r"enqueue_options=.* write .*TaskEnqueueOptions\("),
        ({"enqueue_options": TaskOptions(queue="mail")}, "must be a TaskEnqueueOptions"),
        ({"enqueue_options": {"queue": "mail"}, "not_before": SOON}, "must be a TaskEnqueueOptions"),
        ({"options": {"queue": "mail"}}, r"options=.* must be a TaskOptions: write options=TaskOptions\("),
        ({"options": TaskEnqueueOptions(queue="mail")}, "must be a TaskOptions"),
        ({"not_before": 5.0}, "not_before=5.0 must be an aware datetime.*countdown"),
        ({"not_before": timedelta(1)}, "must be an aware datetime"),
        ({"args": {1: "one"}}, r"the key 1, .* args=\[\{\.\.\.\}\]"),
    ],
)
async def test_the_wrong_kind_of_thing_is_named_with_the_right_one(
    arguments: dict[str, Any], told: str
) -> None:
    async with Stem("memory://") as stem:
        with pytest.raises(TypeError, match=told):
            await stem.enqueue("a", **arguments)
        assert (await stem.broker.stats("default")).ready == 0


async def test_what_is_no_call_and_what_is_no_task_is_named() -> None:
    stem = Stem("memory://")

    @stem.task(name="a")
    async def task() -> None: ...

    calls: list[Any] = [task.call(), task]
    call: Any = "a"
    async with stem:
        with pytest.raises(TypeError, match=r"<Task a> is not a call; write task\.call\("):
            await stem.enqueue_many(calls)
        with pytest.raises(TypeError, match="'a' is not a call"):
            await stem.enqueue_call(call)
        wrong: Any = {1: "one"}
        with pytest.raises(TypeError, match="has the key 1"):
            await stem.enqueue_call(Signature(name="b", kwargs=wrong))
        assert (await stem.broker.stats("default")).ready == 0
    tasks: list[Any] = [5]
    with pytest.raises(TypeError, match=r"5 is not a task; .*@stem\.task"):
        Stem("memory://", tasks=tasks)


def test_an_error_and_an_adjustment_pickle() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(PublishError("no", "refused")))
    assert (str(error), error.outcome) == ("no", "refused")
    assert pickle.loads(pickle.dumps(Adjustment("a", 1, 2, "b"))) == Adjustment("a", 1, 2, "b")
