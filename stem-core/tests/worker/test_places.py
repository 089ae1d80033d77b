"""Places of ``max_concurrency``, between their renewal and their end."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from stem_core import Stem
from stem_core.envelope import Envelope, Limits
from stem_core.worker.admission import Admission


async def test_a_place_given_back_while_it_is_renewed_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Stem("memory://") as stem:
        backend: Any = stem.backend
        limits = Limits(max_concurrency=1, concurrency_key="printer")
        envelope = Envelope(
            id="x",
            name="t",
            queue="q",
            args=b"",
            encoder="json",
            enqueued_at=datetime.now(UTC),
            limits=limits,
        )
        run: Any = SimpleNamespace(envelope=envelope, receipt="r")
        admission = Admission(backend, "one", lease=30.0)
        assert await admission.enter(run) is None
        write, written, go_on = backend.state_write, asyncio.Event(), asyncio.Event()

        async def slow(*arguments: Any, **keywords: Any) -> Any:
            answer = await write(*arguments, **keywords)
            written.set()
            await go_on.wait()
            return answer

        monkeypatch.setattr(backend, "state_write", slow)
        (slot,) = admission._held.values()
        renewing = asyncio.create_task(admission._renew("r", slot))
        await written.wait()  # the store has it, and we do not know
        await admission.leave(run)
        go_on.set()
        await renewing
        monkeypatch.setattr(backend, "state_write", write)
        assert await admission.enter(run) is None
