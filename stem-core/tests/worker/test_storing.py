"""A worker whose store is slow: it claims no more than it can hold, and goes on once the store does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from stem_core import Stem
from stem_core.ports.committer import Committer, Step
from stem_core.worker import Worker


class Held:
    """A committer that answers when it is let go."""

    def __init__(self, committer: Committer) -> None:
        self._committer = committer
        self.open = asyncio.Event()

    async def commit(self, steps: Sequence[Step]) -> Sequence[bool]:
        await self.open.wait()
        return await self._committer.commit(steps)


async def test_a_worker_goes_on_after_its_store_was_slow() -> None:
    stem = Stem("memory://")

    @stem.task
    async def nothing() -> None: ...

    async with stem:
        handles = await stem.enqueue_many([nothing.call()] * 3000)
        assert stem.wiring.committer is not None
        held = stem.wiring.committer = Held(stem.wiring.committer)
        async with Worker(stem) as worker:
            received, still = 0, 0
            while (
                still < 50
            ):  # until it claims nothing more, with all that it claimed run and waiting to be stored
                await asyncio.sleep(0.001)
                before, received = received, worker.stats.received
                still = still + 1 if received == before > 0 else 0
            assert 1000 < received < 3000
            held.open.set()
            await asyncio.wait_for(asyncio.gather(*(each.result() for each in handles)), 30)
