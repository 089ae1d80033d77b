"""Messages that end before they start: settled for good, however late their end is found."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from manual import stem_on

from stem_core import Stem, TaskRevoked
from stem_core.clock import ManualClock
from stem_core.envelope import Envelope
from stem_core.publishing import message_of
from stem_core.status import StatusUpdate, TaskState
from stem_core.worker import Worker


async def left(stem: Stem) -> tuple[int, int, int, int]:
    stats = await stem.broker.stats("default")
    return stats.ready, stats.leased, stats.scheduled, stats.dead


async def publish(stem: Stem, id: str, name: str, **fields: Any) -> None:
    envelope = Envelope(
        id=id,
        name=name,
        queue="default",
        args=b"[[],{}]",
        encoder="json",
        enqueued_at=datetime.now(UTC),
        acks_late=False,
        **fields,
    )
    message = message_of(envelope, stem.wiring.seal(envelope), stem.broker.capabilities, once=False)
    await stem.broker.publish([msgspec.structs.replace(message, once=id == "done")])


async def test_what_would_be_acked_at_its_start_is_settled_when_it_never_starts() -> None:
    clock = ManualClock()
    stem = stem_on(clock)

    @stem.task(name="never")
    async def never() -> None:
        pytest.fail("it was run")

    async with stem:
        now = datetime.fromtimestamp(clock.time(), UTC)
        await publish(stem, "expired", "never", expires=now - timedelta(seconds=1))
        await publish(stem, "unknown", "nobody's")
        await publish(stem, "revoked", "never")
        assert await stem.handle("revoked").revoke()
        assert stem.backend is not None
        await stem.backend.record([StatusUpdate(id="done", state=TaskState.SUCCEEDED)])
        await publish(stem, "done", "never")
        await Worker(stem, unknown_task_grace=0).run(until_empty=True)
        assert await left(stem) == (0, 0, 0, 1)
        (letter,) = (await stem.broker.dead_list("default")).items
        assert (letter.message.id, letter.reason) == ("unknown", "unknown-task")


async def test_a_crash_loop_ends_even_for_what_is_acked_at_its_start() -> None:
    clock = ManualClock()
    stem = stem_on(clock)

    @stem.task(name="never")
    async def never() -> None:
        pytest.fail("it was run")

    async with stem:
        await publish(stem, "looping", "never")
        for _ in range(3):  # workers that died before the ack
            await stem.broker.receive(["default"], limit=1, lease=1, wait=0)
            clock.advance(2)
        await Worker(stem, max_deliveries=3).run(until_empty=True)
        assert await left(stem) == (0, 0, 0, 1)


async def test_what_expires_or_is_revoked_while_it_waits_for_a_slot_does_not_start() -> None:
    clock = ManualClock()
    stem = stem_on(clock)
    running = asyncio.Event()

    @stem.task
    async def slow() -> None:
        running.set()
        await asyncio.Event().wait()

    @stem.task
    async def never() -> None:
        pytest.fail("it was run")

    async with stem, Worker(stem, concurrency=1, prefetch=5, lease=60) as worker:
        first = await slow.enqueue()
        await asyncio.wait_for(running.wait(), 5)
        expiring = await never.with_options(expires=5).enqueue()
        revoked = await never.enqueue()
        async with asyncio.timeout(10):
            while worker.stats.held < 3:
                await asyncio.sleep(0.001)
        await revoked.revoke()
        clock.advance(6)
        await first.revoke(terminate=True)  # the worker learns of both at once, and has a slot then
        for handle in (first, revoked):
            with pytest.raises(TaskRevoked, match="revoked"):
                await handle.result(timeout=10)
        with pytest.raises(TaskRevoked, match="expired"):
            await expiring.result(timeout=10)
        async with asyncio.timeout(10):
            while await left(stem) != (0, 0, 0, 0):  # a status is seen before its ack
                await asyncio.sleep(0.001)
