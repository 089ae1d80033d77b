"""What is Redis's own about the backend; the laws of every backend are in ``test_contract``."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stem_core.envelope import Message
from stem_core.ports.backend import Callback, Outcome
from stem_core.ports.specs import AdapterOptions
from stem_core.status import (
    PUBLISH_FAILED,
    Progress,
    StatusQuery,
    StatusUpdate,
    TaskError,
    TaskState,
    TaskStatus,
    merge,
)
from stem_redis.backend import RedisBackend
from stem_redis.keys import Keys
from stem_redis.plugin import REDIS_BACKEND

NOW = datetime(2026, 5, 4, 12, 30, 0, 123457, tzinfo=UTC)

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)
instants = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@st.composite
def updates(draw: st.DrawFn) -> StatusUpdate:
    state = draw(st.sampled_from(list(TaskState)))
    failed = state is TaskState.FAILED
    return StatusUpdate(
        id="task",
        state=state,
        generation=draw(st.integers(0, 1)),
        attempt=draw(st.integers(0, 11)),
        name=draw(st.none() | st.just("näme")),
        queue=draw(st.none() | st.just("q")),
        payload=draw(st.none() | st.binary(max_size=20)),
        encoder=draw(st.none() | st.just("json|gzip")),
        error=draw(st.none() | st.builds(TaskError, st.text("ab|\x00"), st.text("ab|\x00"))),
        reason=draw(st.sampled_from([None, "", "a|b", PUBLISH_FAILED] if failed else [None, "", "a|b"])),
        meta=draw(st.dictionaries(st.sampled_from(["a", "b", "o"]), plain, max_size=2)),
        progress=draw(st.none() | st.builds(Progress, st.floats(0, 100), plain)),
        enqueued_at=draw(st.none() | instants),
        started_at=draw(st.none() | instants),
        finished_at=draw(st.none() | instants),
        ttl=draw(st.sampled_from([None, 60.0, 3600.0, 3601.0, 7200.0])),
    )


def exact(value: object) -> object:
    """Equal for two values of the same types throughout, whatever the order of keys."""
    if isinstance(value, dict):
        return {key: exact(each) for key, each in value.items()}
    return [exact(each) for each in value] if isinstance(value, list) else (type(value), value)


@given(st.lists(updates(), max_size=8), st.data())
@settings(max_examples=60)
def test_record_is_merge(redis_url: str, sequence: list[StatusUpdate], data: st.DataObject) -> None:
    """The script agrees with the pure function that is the law, one by one or in one batch."""
    batch = data.draw(st.booleans())

    async def run() -> None:
        backend = REDIS_BACKEND.open(redis_url, AdapterOptions(namespace="merge"))
        assert isinstance(backend, RedisBackend)
        await backend.open()
        try:
            await backend.server.command("DEL", f"{backend.keys.prefix}t:task")
            expected: TaskStatus | None = None
            answers = []
            for update in sequence:
                after = merge(expected, update)
                answers.append(after is not None)
                expected = after or expected
            if batch:
                assert await backend.record(sequence) == answers
            else:
                assert [(await backend.record([update]))[0] for update in sequence] == answers
            assert await backend.fetch(["task"]) == [expected]
            if expected is not None:
                (stored,) = await backend.fetch(["task"])
                assert stored is not None
                assert exact(stored.meta) == exact(expected.meta)
                page = await backend.list(StatusQuery())
                assert page.items == (expected,)
        finally:
            await backend.close()

    asyncio.run(run())


async def test_listing_after_expiry_and_a_second_life(backend: RedisBackend, eventually) -> None:
    def queued(id: str, ttl: float | None, **fields: object) -> StatusUpdate:
        fields = {"name": "n", "enqueued_at": NOW, **fields}
        return StatusUpdate(id=id, state=TaskState.QUEUED, ttl=ttl, **fields)  # type: ignore[arg-type]

    await backend.record([queued("a", 0.05), queued("b", 60), queued("c", 0.05)])

    async def gone() -> bool:
        return (await backend.fetch(["a", "c"])) == [None, None]

    await eventually(gone)
    assert [each.id for each in (await backend.list(StatusQuery())).items] == ["b"]
    await backend.record([queued("a", 60), queued("c", 60, enqueued_at=NOW + timedelta(hours=5))])
    assert [each.id for each in (await backend.list(StatusQuery())).items] == ["c", "a", "b"]
    later = StatusQuery(since=NOW + timedelta(hours=1))
    assert [each.id for each in (await backend.list(later)).items] == ["c"]


async def test_pages_hold_each_status_once_while_others_are_added(backend: RedisBackend) -> None:
    def running(id: str) -> StatusUpdate:
        at = NOW + timedelta(hours=int(id) % 3)
        return StatusUpdate(id=id, state=TaskState.RUNNING, name=f"n{int(id) % 2}", enqueued_at=at, ttl=60)

    await backend.record([running(str(n)) for n in range(2500)])
    seen: list[str] = []
    cursor = None
    while True:
        page = await backend.list(StatusQuery(names=("n1",), limit=170, cursor=cursor))
        seen += [each.id for each in page.items]
        await backend.record([running(str(3000 + len(seen)))])
        cursor = page.cursor
        if cursor is None:
            break
    assert {id for id in seen if int(id) < 2500} == {str(n) for n in range(1, 2500, 2)}
    assert len(seen) == len(set(seen))
    with pytest.raises(ValueError, match="cursor"):
        await backend.list(StatusQuery(cursor="nonsense"))


async def test_everything_the_backend_keeps_expires(backend: RedisBackend, adapters) -> None:
    await backend.record([StatusUpdate(id="t", state=TaskState.QUEUED, enqueued_at=NOW, ttl=60)])
    await backend.record([StatusUpdate(id="t", state=TaskState.SUCCEEDED, payload=b"x", ttl=90)])
    await backend.group_create("g", ["t"], [], None, 60)
    await backend.group_add("g", "t", Outcome(TaskState.SUCCEEDED, b"x", "json"))
    for n in range(20):
        await backend.state_write(f"k{n}", b"v", expect=0, ttl=60)
    await backend.limit_take("l", 1, 0.1, 5)
    left = {}
    for pattern in Keys(adapters.namespace).everything():
        for key in await backend.server.command("KEYS", pattern.replace("{", "[{]")):
            left[key.decode()] = await backend.server.command("PTTL", key)
    assert len(left) > 20
    assert all(ttl > 0 for ttl in left.values()), left
    prefix = Keys(adapters.namespace).prefix
    assert left[f"{prefix}i:{int(NOW.timestamp()) // 3600}"] >= left[f"{prefix}t:t"]
    assert left[f"{prefix}i"] >= left[f"{prefix}t:t"]


async def test_an_expiry_is_never_earlier_than_asked_for_and_little_later(backend: RedisBackend) -> None:
    key = f"{backend.keys.prefix}t:t"
    steps = [(TaskState.QUEUED, 7200.0), (TaskState.RUNNING, 7200.0), (TaskState.RETRYING, 3600.0),
             (TaskState.RUNNING, 50_000.0), (TaskState.RETRYING, 1.0), (TaskState.RUNNING, None),
             (TaskState.SUCCEEDED, 7200.0)]  # fmt: skip
    for attempt, (state, ttl) in enumerate(steps):
        await backend.record([StatusUpdate(id="t", state=state, attempt=attempt, ttl=ttl)])
        left = await backend.server.command("PTTL", key)
        if ttl is None:
            assert left == -1
        else:
            slack = 60_000 if ttl >= 3600 else 0
            assert ttl * 1000 - 500 <= left <= ttl * 1000 + slack, (state, ttl)


async def test_a_state_key_that_stays_keeps_the_index(backend: RedisBackend) -> None:
    await backend.state_write("a:stays", b"1", expect=0, ttl=None)
    await backend.state_write("a:goes", b"2", expect=0, ttl=60)
    assert await backend.server.command("PTTL", f"{backend.keys.prefix}sk") == -1
    assert [entry.key for entry in await backend.state_scan("a:")] == ["a:goes", "a:stays"]


async def test_a_scan_of_state_forgets_what_expired(backend: RedisBackend, eventually) -> None:
    await backend.state_write("gone", b"1", expect=0, ttl=0.02)

    async def expired() -> bool:
        return (await backend.state_read("gone")).version == 0

    await eventually(expired)
    assert await backend.state_scan("") == []
    await backend.state_write("next", b"1", expect=0, ttl=60)
    assert await backend.server.command("ZRANGE", f"{backend.keys.prefix}sk", 0, -1) == [b"next"]


async def test_a_version_is_never_given_twice(backend: RedisBackend) -> None:
    versions = []
    for _ in range(30):
        version = await backend.state_write("k", b"v", expect=0, ttl=60)
        assert version is not None
        versions.append(version)
        assert await backend.state_delete("k", expect=version)
        await backend.server.command("DEL", f"{backend.keys.prefix}sv")  # as if it had expired
    assert len(set(versions)) == 30


async def test_wait_survives_a_lost_connection(backend: RedisBackend, adapters, eventually) -> None:
    other = await adapters.backend()
    waiting = asyncio.create_task(backend.wait("t", 20))

    async def listening() -> bool:
        channels = await other.server.command("PUBSUB", "CHANNELS", f"{backend.keys.prefix}w:*")
        return bool(channels)

    await eventually(listening)
    clients = (await other.server.command("CLIENT", "LIST", "TYPE", "pubsub")).decode()
    for line in clients.splitlines():
        await other.server.command("CLIENT", "KILL", "ID", line.split()[0].removeprefix("id="))
    await other.record([StatusUpdate(id="t", state=TaskState.SUCCEEDED, payload=b"1", ttl=60)])
    status = await waiting
    assert status is not None
    assert status.payload == b"1"


async def test_many_waits_share_a_connection_and_leave_nothing(backend: RedisBackend, adapters) -> None:
    other = await adapters.backend()
    ids = [f"t{n}" for n in range(50)]
    waits = [asyncio.create_task(backend.wait(id, 20)) for id in ids + ids]
    cancelled = asyncio.create_task(backend.wait("never", 20))
    timed_out = await backend.wait("t-none", 0.05)
    cancelled.cancel()
    await other.record([StatusUpdate(id=id, state=TaskState.FAILED, ttl=60) for id in ids])
    assert [status.id for status in await asyncio.gather(*waits) if status] == ids + ids
    assert timed_out is None
    await asyncio.gather(cancelled, return_exceptions=True)
    assert not backend._completions._waiters
    backend._completions._leave()  # what a timer does after a few quiet seconds
    await backend.record([StatusUpdate(id="late", state=TaskState.RUNNING, ttl=60)])
    waiting = asyncio.create_task(backend.wait("late", 20))
    await other.record([StatusUpdate(id="late", state=TaskState.SUCCEEDED, ttl=60)])
    assert (await waiting) is not None


async def test_a_callback_is_kept_whole(backend: RedisBackend) -> None:
    callback = [
        Callback(
            Message(id=f"c{n}", queue="q", sealed=bytes(range(256)), priority=n, delay=1.5, once=True),
            StatusUpdate(
                id=f"c{n}", state=TaskState.QUEUED, meta={"x": [1.0, None]}, enqueued_at=NOW, ttl=9.5
            ),
        )
        for n in range(3)
    ]
    members = [f"m{n}" for n in range(2500)]
    assert await backend.group_create("g", members, callback, NOW, 60)
    assert not await backend.group_create("g", ["other"], [], None, 60)
    record = await backend.group_get("g")
    assert record is not None
    assert record.callback == tuple(callback)
    assert record.members == tuple(members)
    assert record.deadline == NOW
    answer = await backend.group_add("g", "m7", Outcome(TaskState.FAILED, error=TaskError("T", "m")))
    assert (answer.left, answer.complete) == (2499, True)
    slim = await backend.group_get("g", outcomes=False)
    assert slim is not None
    assert slim.outcomes == {"m7": Outcome(TaskState.FAILED, error=TaskError("T", "m"))}


async def test_limits_hold_under_contention(backend: RedisBackend, adapters) -> None:
    others = [backend, *[await adapters.backend() for _ in range(3)]]
    answers = await asyncio.gather(*(others[n % 4].limit_take("l", 1, 0.001, 10) for n in range(200)))
    assert sum(answer.granted for answer in answers) == 10
    assert all(900 < answer.retry_after <= 1000 for answer in answers if not answer.granted)
    with pytest.raises(ValueError, match="burst is 2"):
        await backend.limit_take("l", 3, 1, 2)


@pytest.mark.parametrize("ttl", [300 * 366 * 86_400.0, 1e15])
async def test_what_is_kept_for_centuries_can_be_read(backend: RedisBackend, ttl: float) -> None:
    await backend.record([StatusUpdate(id="t", state=TaskState.QUEUED, name="n", enqueued_at=NOW, ttl=ttl)])
    await backend.record([StatusUpdate(id="t", state=TaskState.SUCCEEDED, payload=b"x", ttl=ttl)])
    (status,) = await backend.fetch(["t"])
    assert status is not None
    assert (status.state, status.payload, status.name) == (TaskState.SUCCEEDED, b"x", "n")
    assert await backend.state_write("k", b"v", expect=0, ttl=ttl)
    assert (await backend.state_read("k")).value == b"v"
