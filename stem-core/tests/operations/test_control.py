"""``stem.control``: what is told apart when nobody answers, and who is meant by a name."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence

import pytest

from stem_core import Stem, Worker
from stem_core.envelope import new_id
from stem_core.errors import AdapterError
from stem_core.shared.commands import CHANNEL, Command
from stem_core.shared.telling import sealed


async def test_an_outage_while_replies_are_awaited_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Stem("memory://") as stem:

        async def subscribe(channels: Sequence[str]) -> AsyncIterator[tuple[str, bytes]]:
            raise AdapterError("the connection was lost")
            yield "", b""

        monkeypatch.setattr(stem.broker, "subscribe", subscribe)
        with pytest.raises(AdapterError, match="the connection was lost"):
            await stem.control.ping(timeout=5)


async def test_a_worker_may_be_named_alone() -> None:
    async with Stem("memory://") as stem, Worker(stem, name="one"), Worker(stem, name="two"):
        assert [each.worker for each in await stem.control.ping(workers="two")] == ["two"]
        assert [each.worker for each in await stem.control.ping(workers=["one"])] == ["one"]


async def test_a_command_by_a_clock_that_is_wrong_is_refused_aloud(caplog: pytest.LogCaptureFixture) -> None:
    async with Stem("memory://") as stem, Worker(stem, name="one"):
        assert await stem.control.ping()  # it listens
        for sent_at in (time.time() - 3600, time.time() + 7200):
            value = Command(id=new_id(), kind="shutdown", sent_at=sent_at, arguments={"mode": "hard"})
            await stem.broker.broadcast(CHANNEL, sealed(stem.wiring, value))
        assert [each.worker for each in await stem.control.ping()] == ["one"]
    assert "'shutdown' is not obeyed: it was sent 3600 s ago" in caplog.text
    assert "it was sent 7200 s from now, by its sender's clock" in caplog.text
