"""A step is all or nothing, and leaves the others of its batch alone."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from stem_core.envelope import Ack, DeadLetter, Message, Retry, Settlement
from stem_core.errors import PayloadTooLarge
from stem_core.ports.backend import Callback, GroupOutcome, Outcome
from stem_core.ports.committer import Committer, Step
from stem_core.status import StatusUpdate, TaskState
from stem_redis.backend import RedisBackend
from stem_redis.broker import RedisBroker

AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
#: The index of an hour is made by commit.lua; only after that does enqueue.lua do what is usual.
FIRST_OF_ITS_HOUR = Step(updates=(StatusUpdate(id="first", state=TaskState.QUEUED, enqueued_at=AT),))


@pytest.fixture
def committer(broker: RedisBroker, backend: RedisBackend) -> Committer:
    committer = broker.join(backend)
    assert committer is not None
    return committer


def message(id: str, **fields: object) -> Message:
    return Message(**{"id": id, "queue": "q", "sealed": b"\xff" + id.encode(), **fields})  # type: ignore[arg-type]


def ended(id: str, state: TaskState = TaskState.SUCCEEDED, **fields: object) -> StatusUpdate:
    return StatusUpdate(id=id, state=state, payload=b"\xfe", encoder="json", ttl=60, **fields)  # type: ignore[arg-type]


async def test_a_refused_step_writes_nothing_and_the_next_is_whole(
    broker: RedisBroker, backend: RedisBackend, committer: Committer
) -> None:
    await broker.publish([message(id) for id in "abc"])
    a, b, c = await broker.receive(["q"], limit=3, lease=30, wait=0)
    await backend.record([ended("b", TaskState.CANCELLED)])
    await backend.group_create("g", ["a", "b", "c"], [], None, 60)
    await broker.settle([Settlement(a.receipt, Ack())])

    def step(delivery, id: str) -> Step:
        return Step(
            settlement=Settlement(delivery.receipt, Ack()),
            updates=(
                StatusUpdate(id=f"extra-{id}", state=TaskState.QUEUED, meta={"m": 1}, ttl=60),
                ended(id),
            ),
            publishes=(message(f"next-{id}", queue="out"),),
            outcomes=(GroupOutcome("g", id, Outcome(TaskState.SUCCEEDED, b"\xfd", "json")),),
        )

    unreadable = Step(settlement=Settlement("nonsense", Ack()), updates=(ended("x"),))
    answers = await committer.commit([step(a, "a"), unreadable, step(b, "b"), step(c, "c"), step(c, "c")])
    assert answers == [False, False, False, True, False]
    assert await backend.fetch(["a", "x", "extra-a", "extra-b"]) == [None] * 4
    got = await broker.receive(["out"], limit=9, lease=30, wait=0)
    assert [(each.message.id, each.message.sealed) for each in got] == [("next-c", b"\xffnext-c")]
    record = await backend.group_get("g")
    assert record is not None
    assert record.outcomes == {"c": Outcome(TaskState.SUCCEEDED, b"\xfd", "json")}
    assert (await broker.stats("q")).leased == 1  # b, whose step was refused


async def test_the_callback_goes_out_once_with_its_row(
    broker: RedisBroker, backend: RedisBackend, committer: Committer
) -> None:
    callback = [
        Callback(
            message(f"cb{n}", queue=f"cb{n}", once=True, delay=n * 60.0),
            StatusUpdate(id=f"cb{n}", state=TaskState.QUEUED, name="cb", meta={"x": 1.0}, ttl=60),
        )
        for n in range(2)
    ]
    await backend.group_create("g", ["a", "b"], callback, None, 60)
    added = [GroupOutcome("g", id, Outcome(TaskState.SUCCEEDED, b"1", "json")) for id in "ab"]
    assert await committer.commit([Step(outcomes=(added[0],))]) == [True]
    assert (await broker.stats("cb0")).ready == 0
    assert await committer.commit([Step(outcomes=(added[1],)), Step(outcomes=(added[1],))]) == [True, True]
    (first,) = await broker.receive(["cb0", "cb1"], limit=9, lease=30, wait=0)
    assert first.message == callback[0].message
    assert (await broker.stats("cb1")).scheduled == 1
    statuses = await backend.fetch(["cb0", "cb1"])
    assert [status.meta if status else None for status in statuses] == [{"x": 1.0}, {"x": 1.0}]


async def test_retry_and_dead_letter_in_a_step(
    broker: RedisBroker, backend: RedisBackend, committer: Committer
) -> None:
    await broker.publish([message("a", once=True), message("b")])
    a, b = await broker.receive(["q"], limit=2, lease=30, wait=0)
    steps = [
        Step(
            settlement=Settlement(a.receipt, Retry(0)),
            updates=(StatusUpdate(id="a", state=TaskState.RETRYING, ttl=60),),
        ),
        Step(
            settlement=Settlement(b.receipt, DeadLetter("why", "x")), updates=(ended("b", TaskState.FAILED),)
        ),
    ]
    assert await committer.commit(steps) == [True, True]
    (again,) = await broker.receive(["q"], limit=2, lease=30, wait=0)
    assert (again.message, again.attempt, again.deliveries) == (a.message, 1, 1)
    assert [dead.message.id for dead in (await broker.dead_list("q")).items] == ["b"]


async def test_two_updates_of_one_task_in_a_step_follow_each_other(
    backend: RedisBackend, committer: Committer
) -> None:
    replay = StatusUpdate(id="a", state=TaskState.RUNNING, generation=1, ttl=60)
    await backend.record([ended("a")])
    assert await committer.commit([Step(updates=(ended("a"),))]) == [False]
    assert await committer.commit([Step(updates=(replay, ended("a", generation=1)))]) == [True]
    assert await committer.commit([Step(updates=(ended("b"), ended("b")))]) == [False]
    assert await backend.fetch(["b"]) == [None]


def new_work(id: str, *, once: bool = False, **fields: object) -> Step:
    update = {"name": "t", "queue": "q", "enqueued_at": AT, "ttl": 60.0, "meta": {"a": [1, "b"]}, **fields}
    return Step(
        updates=(StatusUpdate(id=id, state=TaskState.QUEUED, **update),),  # type: ignore[arg-type]
        publishes=(message(id, once=once),),
    )


@pytest.mark.parametrize(
    "fields", [{}, {"meta": {}}, {"ttl": None}, {"ttl": 7200.0}, {"enqueued_at": None}, {"name": None}]
)
async def test_new_work_is_stored_as_any_step_stores_it(
    broker: RedisBroker, backend: RedisBackend, committer: Committer, fields: dict[str, object]
) -> None:
    apart = Step(updates=(StatusUpdate(id="z", state=TaskState.QUEUED, ttl=60),))  # makes it any step
    prefix = backend.keys.prefix

    async def stored(id: str) -> tuple[dict[bytes, bytes], float, int]:
        flat = await backend.server.command("HGETALL", f"{prefix}t:{id}")
        status = dict(zip(flat[::2], flat[1::2], strict=True))
        order = status.pop(b"o")
        status[b"o"] = order[:30] + order[50:]  # without its place and second
        life = await backend.server.command("PTTL", f"{prefix}t:{id}")
        hour = int(order[22:30])
        assert await backend.server.command("LINDEX", f"{prefix}i:{hour}", int(order[30:40])) == id.encode()
        return status, round(life / 10_000), hour

    await committer.commit([FIRST_OF_ITS_HOUR])
    assert await committer.commit([new_work("one", **fields)]) == [True]
    assert await committer.commit([new_work("two", **fields), new_work("more", **fields)]) == [True, True]
    assert await committer.commit([new_work("any", **fields), apart]) == [True, True]
    assert await stored("one") == await stored("any")
    assert await stored("two") == await stored("any")
    got = await broker.receive(["q"], limit=9, lease=30, wait=0)
    assert [(each.message.id, each.message.sealed) for each in got] == [
        (id, b"\xff" + id.encode()) for id in ("one", "two", "more", "any")
    ]
    assert (await broker.counts("q"))["published"] == 4


@pytest.mark.parametrize("once", [False, True])
async def test_one_by_one_through_a_queue_that_rests_in_between(
    broker: RedisBroker, backend: RedisBackend, committer: Committer, once: bool
) -> None:
    await committer.commit([FIRST_OF_ITS_HOUR])
    for n in range(3):
        waiting = asyncio.create_task(broker.receive(["q"], limit=9, lease=30, wait=20))
        await asyncio.sleep(0.01)
        assert await committer.commit([new_work(f"n{n}", once=once)]) == [True]
        assert await committer.commit([new_work(f"n{n}", once=True)]) == [True]
        (delivery,) = await asyncio.wait_for(waiting, 5) if once else (await waiting)[:1]
        assert delivery.message == message(f"n{n}", once=once)
        got = [delivery, *await broker.receive(["q"], limit=9, lease=30, wait=0)]
        assert all(await broker.settle([Settlement(each.receipt, Ack()) for each in got]))
        root = broker.keys.root("q")
        assert await broker.server.command("SCARD", f"{root}:levels") == 0
        assert await broker.server.command("PTTL", f"{root}:s0") > 0
        assert await broker.server.command("PTTL", f"{root}:counts") > 0
    assert await committer.commit([new_work("last", once=once)]) == [True]
    assert await broker.server.command("PTTL", f"{root}:s0") == -1
    assert await broker.server.command("PTTL", f"{root}:counts") == -1
    assert [status and status.name for status in await backend.fetch(["n0", "last"])] == ["t", "t"]


@pytest.mark.parametrize("count", [3, 450])
@pytest.mark.parametrize("once", [False, True])
async def test_new_work_among_what_is_known(
    broker: RedisBroker, backend: RedisBackend, committer: Committer, count: int, once: bool
) -> None:
    await backend.record([ended("n1")])
    await committer.commit([new_work("n2", once=True)])
    steps = [new_work(f"n{n}", once=once) for n in range(count)] + [new_work("n0", once=once)]
    assert await committer.commit(steps) == [True] * (count + 1)
    statuses = await backend.fetch([f"n{n}" for n in range(count)])
    assert [status and status.state for status in statuses] == [
        TaskState.SUCCEEDED if n == 1 else TaskState.QUEUED for n in range(count)
    ]
    ready = (await broker.stats("q")).ready
    assert ready == (count if once else count + 2)


async def test_kinds_of_new_work_that_take_turns_in_a_batch(
    broker: RedisBroker, backend: RedisBackend, committer: Committer
) -> None:
    """Each change of kind begins a new run of the script's arguments: queue, priority, name, meta, ttl."""
    await committer.commit([FIRST_OF_ITS_HOUR])
    kinds = [
        ("a", 0, "one", {}, 60),
        ("b", 9, "two", {"m": 1, "n": "x"}, 45),
        ("a", 5, "two", {"m": 2}, 30),
    ]
    wanted = {}
    steps = []
    for n in range(30):
        queue, priority, name, meta, ttl = kinds[(n // 2) % 3]  # runs of two
        update = StatusUpdate(
            id=f"k{n}", state=TaskState.QUEUED, name=name, queue=queue, meta=meta, ttl=ttl, enqueued_at=AT
        )
        wanted[f"k{n}"] = message(f"k{n}", queue=queue, priority=priority, once=bool(n % 4 == 3))
        steps.append(Step(updates=(update,), publishes=(wanted[f"k{n}"],)))
    assert await committer.commit(steps) == [True] * 30
    got = [
        each.message for queue in "ab" for each in await broker.receive([queue], limit=30, lease=30, wait=0)
    ]
    assert {each.id: each for each in got} == wanted
    assert len(got) == 30
    for step, status in zip(steps, await backend.fetch(list(wanted)), strict=True):
        (update,) = step.updates
        assert status is not None
        assert (status.name, status.queue, status.meta) == (update.name, update.queue, dict(update.meta))


async def test_a_batch_larger_than_a_script_call(
    broker: RedisBroker, backend: RedisBackend, committer: Committer
) -> None:
    steps = [Step(publishes=(message(f"{n:04}"),), updates=(StatusUpdate(id=f"{n:04}", state=TaskState.QUEUED, ttl=60),)) for n in range(1100)]  # fmt: skip
    assert await committer.commit(steps) == [True] * 1100
    got = await broker.receive(["q"], limit=2000, lease=30, wait=0)
    assert [each.message.id for each in got] == [f"{n:04}" for n in range(1100)]
    answers = await asyncio.gather(
        *(committer.commit([Step(settlement=Settlement(each.receipt, Ack()), updates=(ended(each.message.id),))]) for each in got)
    )  # fmt: skip
    assert answers == [[True]] * 1100
    statuses = await backend.fetch([each.message.id for each in got])
    assert all(status and status.state is TaskState.SUCCEEDED for status in statuses)


async def test_too_large_is_said_before_anything_is_stored(broker: RedisBroker, committer: Committer) -> None:
    assert broker.capabilities.max_size
    big = message("big", sealed=bytes(broker.capabilities.max_size + 1))
    with pytest.raises(PayloadTooLarge):
        await committer.commit([Step(publishes=(message("small"),)), Step(publishes=(big,))])
    assert (await broker.stats("q")).ready == 0


async def test_join_wants_one_store_and_one_namespace(broker: RedisBroker, adapters) -> None:
    assert broker.join(await adapters.backend()) is not None
    assert broker.join(await adapters.backend(adapters.url.replace("127.0.0.1", "localhost"))) is not None
    assert broker.join(await adapters.backend(namespace="another")) is None
    assert broker.join(await adapters.backend(adapters.url.rpartition("/")[0] + "/1")) is None
    assert broker.join(object()) is None  # type: ignore[arg-type]
