"""The backend laws and the committer's on both built-in stores."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from stem_core.envelope import Ack, Message, Retry, Settlement
from stem_core.ports import Callback, GroupAnswer, GroupOutcome, Outcome, Step
from stem_core.status import Progress, StatusQuery, StatusUpdate, TaskError, TaskState, TaskStatus

T0 = datetime(2024, 2, 29, 1, 2, 3, 456_789, tzinfo=UTC)
QUEUED, RUNNING, RETRYING = TaskState.QUEUED, TaskState.RUNNING, TaskState.RETRYING
SUCCEEDED, FAILED, CANCELLED = TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED


def update(id: str, state: TaskState, **more) -> StatusUpdate:
    return StatusUpdate(id=id, state=state, **more)


async def state_of(store, id: str) -> TaskState | None:
    (status,) = await store.backend.fetch([id])
    return status and status.state


async def test_law_20_no_step_back(store):
    assert await store.backend.record([update("a", QUEUED), update("a", RUNNING), update("a", QUEUED)]) == [
        True, True, False,
    ]  # fmt: skip
    assert await store.backend.record([update("a", SUCCEEDED, payload=b"1"), update("a", FAILED)]) == [
        True,
        False,
    ]
    assert await store.backend.record([update("a", QUEUED, generation=1)]) == [True]
    assert await state_of(store, "a") is QUEUED


async def test_law_20_a_failed_publish_is_not_the_end(store):
    await store.backend.record([update("a", QUEUED), update("a", FAILED, reason="publish-failed")])
    assert await store.backend.wait("a", 0) is None
    assert await store.backend.record([update("a", RUNNING)]) == [True]
    assert await state_of(store, "a") is RUNNING


async def test_law_21_read_back_equal(store):
    meta = {
        "none": None,
        "bool": True,
        "int": -(2**63),
        "float": 0.1,
        "text": "\x00ß✓",
        "list": [1, [2.0]],
        "map": {"k": {}},
    }
    sent = update(
        "a", RUNNING, generation=2, attempt=3, name="n", queue="q", meta=meta, progress=Progress(12.5, {"at": [1, None]}),
        enqueued_at=T0, started_at=T0 + timedelta(microseconds=1),
    )  # fmt: skip
    done = update(
        "a", FAILED, generation=2, attempt=3, payload=bytes(range(256)), encoder="json+zstd",
        error=TaskError("E", "m\x00", "tb"), reason="why", finished_at=T0 + timedelta(seconds=1),
    )  # fmt: skip
    assert await store.backend.record([sent, done]) == [True, True]
    (status,) = await store.backend.fetch(["a"])
    assert status == TaskStatus(
        id="a", state=FAILED, generation=2, attempt=3, name="n", queue="q", payload=bytes(range(256)),
        encoder="json+zstd", error=TaskError("E", "m\x00", "tb"), reason="why", meta=meta,
        progress=Progress(12.5, {"at": [1, None]}), enqueued_at=T0, started_at=T0 + timedelta(microseconds=1),
        finished_at=T0 + timedelta(seconds=1),
    )  # fmt: skip
    assert {key: type(value) for key, value in status.meta.items()} == {k: type(v) for k, v in meta.items()}


async def test_law_22_wait_returns_as_soon_as_it_ends(store):
    waiting = [asyncio.ensure_future(store.backend.wait("a", 60)) for _ in range(3)]
    await asyncio.sleep(0)
    await store.backend.record([update("a", RUNNING)])
    assert await store.backend.wait("a", 0.01) is None
    await store.backend.record([update("a", SUCCEEDED, payload=b"1")])
    assert [status.payload for status in await asyncio.gather(*waiting)] == [b"1"] * 3
    assert (await store.backend.wait("a", 0)).state is SUCCEEDED


async def test_law_23_kept_until_its_time_and_renewed(store, clock):
    await store.backend.record(
        [update("a", QUEUED, ttl=10), update("b", QUEUED, ttl=10), update("c", QUEUED)]
    )
    clock.advance(9)
    await store.backend.record([update("a", RUNNING, ttl=10)])
    clock.advance(2)
    assert [status and status.id for status in await store.backend.fetch(["a", "b", "c"])] == ["a", None, "c"]
    assert await store.backend.record([update("b", QUEUED, ttl=5)]) == [True]
    clock.advance(20)
    assert [status and status.id for status in await store.backend.fetch(["a", "b", "c"])] == [
        None,
        None,
        "c",
    ]
    clock.advance(100_000)
    await store.backend.record([update("d", QUEUED)])
    page = await store.backend.list(StatusQuery())
    assert {status.id for status in page.items} == {"c", "d"}


GOOD, BAD = Outcome(SUCCEEDED, b"1", "json"), Outcome(FAILED, error=TaskError("E", "m"))


async def test_law_24_a_group_completes_at_its_last_member(store):
    assert await store.backend.group_create("g", ["b", "a", "c"], [], T0, 60)
    assert not await store.backend.group_create("g", ["x"], [], None, 60)
    add = store.backend.group_add
    assert await add("g", "a", BAD) == GroupAnswer(2, False)
    assert await add("g", "a", GOOD) == GroupAnswer(2, False)
    assert await add("g", "c", GOOD) == GroupAnswer(1, False)
    assert await add("g", "b", GOOD) == GroupAnswer(0, True)
    assert await add("g", "b", BAD) == GroupAnswer(0, True)
    assert await add("g", "c", BAD) == GroupAnswer(0, False)
    for group, member in (("g", "stranger"), ("none", "a")):
        assert await add(group, member, GOOD) == GroupAnswer(0, False)
    record = await store.backend.group_get("g")
    assert (record.members, record.completed_by, record.closed, record.deadline) == (
        ("b", "a", "c"),
        "b",
        None,
        T0,
    )
    assert record.outcomes == {"a": BAD, "b": GOOD, "c": GOOD}
    light = await store.backend.group_get("g", outcomes=False)
    assert light.outcomes["b"] == Outcome(SUCCEEDED)
    assert light.outcomes["a"].error == TaskError("E", "m")


async def test_law_24_with_a_callback_at_its_first_failure(store, clock):
    callback = Callback(Message(id="cb", queue="q", sealed=b"s", once=True), update("cb", QUEUED))
    assert await store.backend.group_create("g", ["a", "b"], [callback], None, 60)
    assert await store.backend.group_add("g", "b", BAD) == GroupAnswer(1, True)
    assert await store.backend.group_add("g", "a", GOOD) == GroupAnswer(0, False)
    assert await store.backend.group_close("g", "deadline") == GroupAnswer(0, False)
    assert (await store.backend.group_get("g")).callback == (callback,)
    clock.advance(59)
    await store.backend.group_add("g", "b", BAD)
    clock.advance(59)
    assert await store.backend.group_get("g") is not None
    clock.advance(2)
    assert await store.backend.group_get("g") is None
    assert await store.backend.group_create("g", [], [callback], None, 60)
    assert (await store.backend.group_get("g")).completed_by == ""


async def test_law_24_closed_once(store):
    await store.backend.group_create("g", ["a", "b"], [], None, 60)
    await store.backend.group_add("g", "a", GOOD)
    assert await store.backend.group_close("g", "cancelled") == GroupAnswer(1, True)
    assert await store.backend.group_close("g", "deadline") == GroupAnswer(1, False)
    assert await store.backend.group_close("g", "cancelled") == GroupAnswer(1, True)
    assert await store.backend.group_close("none", "cancelled") == GroupAnswer(0, False)
    assert await store.backend.group_add("g", "b", GOOD) == GroupAnswer(0, False)
    record = await store.backend.group_get("g")
    assert (record.closed, record.completed_by, record.missing) == ("cancelled", "", ())


async def test_law_25_compare_and_set(store, clock):
    backend = store.backend
    assert (await backend.state_read("k")).version == 0
    versions = await asyncio.gather(
        *(backend.state_write("k", b"%d" % n, expect=0, ttl=None) for n in range(20))
    )
    (version,) = [each for each in versions if each is not None]
    read = await backend.state_read("k")
    assert (read.version, read.value) == (version, b"%d" % versions.index(version))
    assert read.now.timestamp() == clock.time()
    assert not await backend.state_delete("k", expect=version + 1)
    assert await backend.state_delete("k", expect=version)
    assert not await backend.state_delete("k")
    again = await backend.state_write("k", b"", expect=0, ttl=10)
    assert again not in (None, 0, version)
    clock.advance(11)
    assert (await backend.state_read("k")).value is None
    third = await backend.state_write("k", b"3", expect=0, ttl=None)
    assert third not in (None, 0, version, again)


async def test_law_25_scan(store, clock):
    for key in ("a:1", "a:2", "a:✓", "a", "b", "a:gone", "a%"):
        await store.backend.state_write(key, key.encode(), expect=0, ttl=1 if "gone" in key else None)
    clock.advance(2)
    assert [entry.key for entry in await store.backend.state_scan("a:")] == ["a:1", "a:2", "a:✓"]
    assert len(await store.backend.state_scan("")) == 6


async def test_law_26_no_window_grants_more_than_burst_and_rate(store, clock):
    async def taken(permits: int = 1) -> bool:
        return (await store.backend.limit_take("k", permits, 10.0, 5)).granted

    assert sum([await taken() for _ in range(20)]) == 5
    grants = 0
    for _ in range(100):
        clock.advance(0.05)
        grants += await taken()
    assert grants == 50
    answer = await store.backend.limit_take("k", 3, 10.0, 5)
    assert not answer.granted
    clock.advance(answer.retry_after)
    assert await taken(3)
    assert (await store.backend.limit_take("other", 5, 1.0, 5)).granted
    for permits, rate in ((6, 1.0), (1, 0.0), (0, 1.0)):
        with pytest.raises(ValueError):
            await store.backend.limit_take("k", permits, rate, 5)


async def test_law_27_every_match_once(store):
    states = [QUEUED, RUNNING, SUCCEEDED, FAILED]
    await store.backend.record(
        [
            update(
                f"{n}",
                states[n % 4],
                name=f"n{n % 3}",
                queue=f"q{n % 2}",
                enqueued_at=T0 + timedelta(seconds=n),
            )
            for n in range(60)
        ]
    )
    await store.backend.record([update("never enqueued", RUNNING)])

    async def listed(**query) -> list[str]:
        found, cursor = [], None
        while True:
            page = await store.backend.list(StatusQuery(limit=7, cursor=cursor, **query))
            assert len(page.items) <= 7
            found += [status.id for status in page.items]
            cursor = page.cursor
            if cursor is None:
                return found
            await store.backend.record([update(found[-1], CANCELLED), update(f"new{len(found)}", SUCCEEDED)])

    assert sorted(await listed(states=(FAILED,)), key=int) == [str(n) for n in range(60) if n % 4 == 3]
    assert sorted(await listed(names=("n1", "n2"), queues=("q0",)), key=int) == [
        str(n) for n in range(60) if n % 3 and n % 2 == 0
    ]
    since, until = T0 + timedelta(seconds=10), T0 + timedelta(seconds=20)
    assert sorted(await listed(since=since, until=until), key=int) == [str(n) for n in range(10, 20)]
    every = [id for id in await listed() if not id.startswith("new")]
    assert len(every) == len(set(every)) == 61


# committer


async def leased(store, *ids: str):
    await store.broker.publish([Message(id=id, queue="q", sealed=b"s") for id in ids])
    return list(await store.broker.receive(["q"], limit=len(ids), lease=30, wait=0))


async def test_law_30_all_or_nothing(store, clock):
    stale, ended, good = await leased(store, "a", "b", "c")
    await store.broker.settle([Settlement(stale.receipt, Retry(100))])
    await store.backend.record([update("b", CANCELLED)])
    await store.backend.group_create("g", ["a", "b", "c"], [], None, 60)

    def step(delivery, **more) -> Step:
        id = delivery.message.id
        return Step(
            settlement=Settlement(delivery.receipt, Ack()),
            updates=(update(f"extra-{id}", QUEUED), update(id, SUCCEEDED, payload=b"1")),
            publishes=(Message(id=f"link-{id}", queue="links", sealed=b"l", once=True),),
            outcomes=(GroupOutcome("g", id, GOOD),),
            **more,
        )

    assert await store.committer.commit([step(stale), step(ended), step(good), step(good)]) == [
        False, False, True, False,
    ]  # fmt: skip
    states = await store.backend.fetch(["a", "b", "c", "extra-a", "extra-b", "extra-c"])
    assert [status and status.state for status in states] == [None, CANCELLED, SUCCEEDED, None, None, QUEUED]
    links = await store.broker.receive(["links"], limit=9, lease=1, wait=0)
    assert [link.message.id for link in links] == ["link-c"]
    assert set((await store.backend.group_get("g")).outcomes) == {"c"}
    stats = await store.broker.stats("q")
    assert (stats.ready, stats.scheduled, stats.leased) == (0, 1, 1)


async def test_law_30_other_refusals_change_nothing_else(store):
    (delivery,) = await leased(store, "a")
    known = Message(id="k", queue="q2", sealed=b"l", once=True)
    await store.broker.publish([known])
    await store.backend.record([update("k", RUNNING)])
    step = Step(
        settlement=Settlement(delivery.receipt, Ack()),
        updates=(update("k", QUEUED), update("a", SUCCEEDED)),
        publishes=(known, known),
    )
    assert await store.committer.commit([step]) == [True]
    assert (await store.broker.stats("q2")).ready == 1
    assert await state_of(store, "k") is RUNNING
    assert await state_of(store, "a") is SUCCEEDED


async def test_law_30_a_terminal_update_refused_by_the_same_step(store):
    step = Step(updates=(update("a", SUCCEEDED), update("a", FAILED)))
    assert await store.committer.commit([step]) == [False]
    assert await state_of(store, "a") is None


async def test_law_32_the_completing_step_publishes_the_callback_once(store):
    callback = Callback(
        Message(id="cb", queue="q", sealed=b"s", once=True, delay=5), update("cb", QUEUED, name="n")
    )
    await store.backend.group_create("g", ["a", "b"], [callback], None, 60)
    steps = [Step(outcomes=(GroupOutcome("g", member, GOOD),)) for member in ("a", "b")]
    assert await store.committer.commit(steps[:1]) == [True]
    assert await state_of(store, "cb") is None
    assert await store.committer.commit([steps[1], steps[1]]) == [True, True]
    assert await store.committer.commit(steps) == [True, True]
    assert (await store.broker.stats("q")).scheduled == 1
    assert await state_of(store, "cb") is QUEUED


async def test_law_32_a_commit_wakes_receivers_and_waiters(store):
    (delivery,) = await leased(store, "a")
    receiver = asyncio.ensure_future(store.broker.receive(["q2"], limit=1, lease=1, wait=60))
    waiter = asyncio.ensure_future(store.backend.wait("a", 60))
    await asyncio.sleep(0)
    step = Step(
        settlement=Settlement(delivery.receipt, Ack()),
        updates=(update("a", SUCCEEDED),),
        publishes=(Message(id="next", queue="q2", sealed=b"s"),),
    )
    assert await store.committer.commit([step]) == [True]
    assert (await waiter).state is SUCCEEDED
    assert [each.message.id for each in await receiver] == ["next"]
