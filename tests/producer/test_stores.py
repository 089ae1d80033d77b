"""The producer on servers: one store, and a broker and backend in two."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from stem_core import Signature, Stem, TaskEnqueueOptions, TaskOptions, TaskRevoked, TaskState

PAIRS = ["redis", "postgres", "redis+postgres", "postgres+redis", "sqlite+redis"]
UNIQUE = TaskOptions(unique=True)


@pytest.fixture(params=PAIRS)
async def stem(
    request: pytest.FixtureRequest, redis_url: str, postgres_url: str, unique_name: str, tmp_path: Path
) -> AsyncIterator[Stem]:
    urls = {"redis": redis_url, "postgres": postgres_url, "sqlite": f"sqlite:///{tmp_path / 'stem.db'}"}
    broker, _, backend = request.param.partition("+")
    async with Stem(urls[broker], backend=urls[backend] if backend else None, namespace=unique_name) as stem:
        assert (stem.committer is None) == bool(backend)
        yield stem


async def test_a_publish_and_its_status(stem: Stem) -> None:
    handle = await stem.enqueue("a", args=[1], headers={"h": "v"}, meta={"by": "me"})
    status = await handle.status()
    assert status is not None
    assert (status.state, status.name, status.meta) == (TaskState.QUEUED, "a", {"by": "me"})
    (delivery,) = await stem.broker.receive(["default"], limit=1, lease=30, wait=5)
    envelope = stem.wiring.unseal(delivery.message.sealed)
    assert (envelope.id, dict(envelope.headers)) == (handle.id, {"h": "v"})


async def test_many_in_a_crowd(stem: Stem) -> None:
    many = stem.enqueue_many([Signature(name="a", args=(i,)) for i in range(1500)])
    alone = (stem.enqueue("b", args=[i]) for i in range(200))
    threads = (asyncio.to_thread(stem.enqueue_sync, "c", [i]) for i in range(20))
    handles, *others = await asyncio.gather(many, *alone, *threads)
    assert len({each.id for each in [*handles, *others]}) == 1720
    assert (await stem.broker.stats("default")).ready == 1720


async def test_options_that_the_store_must_honour(stem: Stem) -> None:
    later = TaskEnqueueOptions(eta=datetime.now(UTC) + timedelta(hours=1))
    await stem.enqueue("a", enqueue_options=later)
    await stem.enqueue("a", enqueue_options=TaskEnqueueOptions(countdown=3600))
    for _ in range(2):
        await stem.enqueue("a", enqueue_options=TaskEnqueueOptions(task_id="same"))
    stats = await stem.broker.stats("default")
    assert (stats.ready, stats.scheduled) == (1, 2)


async def test_unique_among_many_callers(stem: Stem) -> None:
    handles = await asyncio.gather(*(stem.enqueue("a", options=UNIQUE) for _ in range(20)))
    assert len({each.id for each in handles}) == 1
    assert (await stem.broker.stats("default")).ready == 1


async def test_revoked_before_it_ran(stem: Stem) -> None:
    handle = await stem.enqueue("a", enqueue_options=TaskEnqueueOptions(countdown=3600))
    assert await handle.revoke() is stem.broker.capabilities.withdraw
    if stem.broker.capabilities.withdraw:
        with pytest.raises(TaskRevoked):
            await handle.result(timeout=5)
