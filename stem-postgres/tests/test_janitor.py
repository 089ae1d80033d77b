"""What has expired is removed, however much of it there is."""

from __future__ import annotations

import asyncio

import pytest

from stem_core.status import StatusUpdate, TaskState
from stem_postgres import janitor
from stem_postgres.backend import PostgresBackend


async def test_a_look_that_is_not_enough_is_followed_by_another(
    backend: PostgresBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(janitor, "_MOST_BATCHES", 1)
    cleaner = backend._janitor
    kept = StatusUpdate(id="kept", state=TaskState.QUEUED, ttl=600)
    brief = [StatusUpdate(id=f"t{n}", state=TaskState.QUEUED, ttl=0.001) for n in range(1500)]
    await backend.record([kept, *brief])
    await asyncio.sleep(0.01)  # past the ttl, by the server's clock
    # Rows are pruned some time after they expire; that time has passed as well.
    due = "update {s}.status set prune_after = expires_at where expires_at <= statement_timestamp() returning seq"
    assert len(await backend.database.run(due, {})) >= 1500
    looks = [await cleaner.clean()]
    while cleaner._behind:
        looks.append(await cleaner.clean())
    assert sum(looks) >= 1500
    assert len(looks) > 1
    assert [status is not None for status in await backend.fetch(["kept", "t0", "t1499"])] == [
        True,
        False,
        False,
    ]
