"""``stem.dead_letters`` on a clock that the test moves."""

from __future__ import annotations

from pathlib import Path

import pytest

from stem_core import Stem, TaskEnqueueOptions
from stem_core.testing import Inline, run_inline


def shop() -> tuple[Stem, list[int]]:
    stem = Stem("memory://")
    ran: list[int] = []

    @stem.task(name="break")
    async def break_(number: int) -> int:
        ran.append(number)
        if ran.count(number) < 2:
            raise ValueError(f"number {number}")
        return number

    return stem, ran


async def put_aside(inline: Inline, count: int, first: int = 0, **options: object) -> list[str]:
    handles = []
    for number in range(first, first + count):
        enqueue = TaskEnqueueOptions(**options)  # type: ignore[arg-type]
        handles.append(await inline.stem.enqueue("break", [number], enqueue_options=enqueue))
        await inline.advance(10)
    return [each.id for each in handles]


async def test_a_page_is_filtered_by_id_reason_and_age() -> None:
    stem, _ = shop()
    async with run_inline(stem) as inline:
        start = inline.now
        ids = await put_aside(inline, 4)
        letters = stem.dead_letters
        assert [each.message.id for each in (await letters.list()).items] == ids
        first = await letters.list(limit=3)
        assert first.cursor is not None
        rest = await letters.list(limit=3, cursor=first.cursor)
        assert [each.message.id for each in (*first.items, *rest.items)] == ids
        assert [each.message.id for each in (await letters.list(ids=[ids[2], "no"])).items] == [ids[2]]
        assert (await letters.list(reason="rejected")).items == ()
        early = await letters.list(before=start.replace(microsecond=0) + (inline.now - start) / 2)
        assert 0 < len(early.items) < 4
        assert await letters.count(reason="max-retries-exhausted") == 4
        with pytest.raises(ValueError, match="time zone"):
            await letters.list(before=start.replace(tzinfo=None))
        with pytest.raises(ValueError, match="limit=0"):
            await letters.list(limit=0)
        with pytest.raises(ValueError, match="cursor='zz' is none"):
            await letters.list(cursor="zz")
        with pytest.raises(ValueError, match="keep=-1"):
            await letters.purge(keep=-1)
        assert await letters.count(ids=ids[0]) == 1
        assert await letters.count() == 4


async def test_a_replay_runs_again_as_the_next_generation() -> None:
    stem, ran = shop()
    async with run_inline(stem) as inline:
        ids = await put_aside(inline, 3)
        dry = await stem.dead_letters.replay(limit=2, dry_run=True)
        assert dry == [(ids[0], 1), (ids[1], 1)]
        await inline.settle()
        assert ran == [0, 1, 2]
        assert await stem.dead_letters.replay(limit=2) == dry
        await inline.settle()
        assert ran == [0, 1, 2, 0, 1]
        status = await stem.handle(ids[0]).status()
        assert status is not None
        assert (status.state, status.generation) == ("succeeded", 1)
        assert await stem.handle(ids[0]).result(timeout=10) == 0
        assert [each.message.id for each in (await stem.dead_letters.list()).items] == [ids[2]]


async def test_a_replay_is_recorded_queued_before_it_runs() -> None:
    stem, _ = shop()
    async with run_inline(stem) as inline:
        (id,) = await put_aside(inline, 1)
        await stem.dead_letters.purge()
    async with stem:  # its own broker again: nothing runs here
        await stem.enqueue("break", [1], enqueue_options=TaskEnqueueOptions(task_id=id))
        (delivery,) = await stem.broker.receive(["default"], limit=1, lease=60, wait=0)
        from stem_core.envelope import DeadLetter, Settlement

        await stem.broker.settle([Settlement(delivery.receipt, DeadLetter("rejected"))])
        assert await stem.dead_letters.replay(ids=[id]) == [(id, 1)]
        status = await stem.handle(id).status()
        assert status is not None
        assert (status.state, status.generation) == ("queued", 1)


async def test_what_has_expired_is_refused_and_listed() -> None:
    stem, ran = shop()
    async with run_inline(stem) as inline:
        ids = await put_aside(inline, 2, expires=100)
        (lasting,) = await put_aside(inline, 1, first=5)
        await inline.advance(100)
        done = await stem.dead_letters.replay(limit=1)
        assert (done, done.expired) == ([(lasting, 1)], ids)
        await inline.settle()
        assert ran == [0, 1, 5, 5]
        assert [each.message.id for each in (await stem.dead_letters.list()).items] == ids


async def test_show_opens_what_is_sealed() -> None:
    stem, _ = shop()
    async with run_inline(stem) as inline:
        (id,) = await put_aside(inline, 1)
        found = await stem.dead_letters.show("default", id)
        assert found is not None
        dead, envelope = found
        assert envelope is not None
        assert (dead.message.id, envelope.name) == (id, "break")
        assert await stem.dead_letters.show("default", "nobody") is None


async def test_unreadable_bytes_are_shown_and_replayed_without_touching_a_status() -> None:
    from stem_core.envelope import Message

    stem, _ = shop()
    async with run_inline(stem) as inline:
        (id,) = await put_aside(inline, 1)
        await stem.dead_letters.purge()
        await stem.broker.publish([Message(id=id, queue="default", sealed=b"garbage")])
        await inline.settle()
        found = await stem.dead_letters.show("default", id)
        assert found is not None
        assert (found[0].reason, found[1]) == ("decode-failed", None)
        before = await stem.handle(id).status()
        assert await stem.dead_letters.replay() == [(id, 1)]
        await inline.settle()
        assert await stem.handle(id).status() == before


async def test_purge_keeps_the_newest() -> None:
    stem, _ = shop()
    async with run_inline(stem) as inline:
        ids = await put_aside(inline, 4)
        assert await stem.dead_letters.purge(keep=1, limit=2) == 2
        assert await stem.dead_letters.purge(keep=1) == 1
        assert [each.message.id for each in (await stem.dead_letters.list()).items] == [ids[3]]
        assert await stem.dead_letters.purge(ids=ids) == 1


async def test_counts_and_cursors_that_no_store_takes(tmp_path: Path) -> None:
    async with Stem(f"sqlite:///{tmp_path / 'dead.db'}") as stem:
        letters = stem.dead_letters
        with pytest.raises(ValueError, match="cursor='99999999999999999999' is none"):
            await letters.list(cursor="9" * 20)
        for limit in (0, 10**30):
            with pytest.raises(ValueError, match=f"limit={limit} must be"):
                await letters.list(limit=limit)
        with pytest.raises(ValueError, match="keep=-1 must be at least 0"):
            await letters.purge(keep=-1)
        with pytest.raises(TypeError, match="limit='5' must be a whole number"):
            await letters.replay(limit="5")  # type: ignore[arg-type]
        assert await letters.purge(ids=[]) == 0
