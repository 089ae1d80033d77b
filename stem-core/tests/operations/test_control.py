"""``stem.control``: what is told apart when nobody answers, and who is meant by a name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest

from stem_core import Stem, Worker
from stem_core.errors import AdapterError


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
