"""Many callers at once: coroutines and threads, each with its own id and answer."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from stem_core import Stem

CALLS = 10_000
COROUTINES = 50
THREADS = 8
EACH = CALLS // (COROUTINES + THREADS)


async def test_coroutines_and_threads_at_once_on_sqlite(tmp_path: Path, take: Any) -> None:
    async with Stem(f"sqlite:///{tmp_path / 'stem.db'}") as stem:

        @stem.task(name="work")
        async def work(who: str, n: int) -> None: ...

        answers: dict[str, tuple[str, int]] = {}

        async def coroutine(who: str, count: int) -> None:
            for n in range(count):
                handle = await work.enqueue(who, n)
                assert handle.id not in answers
                answers[handle.id] = (who, n)

        def thread(who: str, count: int) -> None:
            for n in range(count):
                handle = work.enqueue_sync(who, n)
                assert handle.id not in answers
                answers[handle.id] = (who, n)

        rest = CALLS - EACH * (COROUTINES + THREADS)
        await asyncio.gather(
            *(coroutine(f"c{i}", EACH + (rest if i == 0 else 0)) for i in range(COROUTINES)),
            *(asyncio.to_thread(thread, f"t{i}", EACH) for i in range(THREADS)),
        )
        assert len(answers) == CALLS
        found: dict[str, tuple[str, int]] = {}
        while batch := await take(stem, limit=1000):
            for _, envelope in batch:
                ((who, n), _) = stem.encoders.chain(envelope.encoder).decode(envelope.args, None)  # type: ignore[misc]
                assert envelope.id not in found
                found[envelope.id] = (who, n)
        assert found == answers
        statuses = await stem.backend.fetch(list(answers))  # type: ignore[union-attr]
        assert all(each is not None and each.name == "work" for each in statuses)
