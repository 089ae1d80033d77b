"""How much is claimed ahead."""

from __future__ import annotations

from typing import Any, cast

import pytest

from stem_core.worker.outcome import Finish, Kind, Succeeded
from stem_core.worker.pool import Pool


def pool(*, prefetch: int | None = None, concurrency: int = 10) -> Pool:
    nothing = cast("Any", None)
    return Pool(nothing, nothing, concurrency=concurrency, prefetch=prefetch, ended=nothing)


def after(seconds: float, *, prefetch: int | None = None, concurrency: int = 10) -> int:
    """The room for claims of an idle pool whose runs took ``seconds``."""
    made = pool(prefetch=prefetch, concurrency=concurrency)
    finish = Finish(delivery=cast("Any", None), kind=Kind.SUCCEEDED, end=Succeeded(None, None, seconds))
    for _ in range(500):
        made.learn(finish)
    return made.room


@pytest.mark.parametrize(
    ("seconds", "room"),
    [
        pytest.param(1.0, 10, id="slow runs: what can start"),
        pytest.param(0.04, 20, id="quick runs: as many again"),
        pytest.param(0.001, 30, id="very quick runs: 20 ms of them"),
        pytest.param(0.0, 410, id="no-ops: the most"),
    ],
)
def test_quick_runs_are_claimed_ahead(seconds: float, room: int) -> None:
    assert after(seconds) == room


def test_a_pool_that_has_seen_nothing_claims_what_can_start() -> None:
    assert pool().room == 10


def test_many_slots_are_claimed_ahead_once() -> None:
    assert after(0.0, concurrency=1000) == 2000


def test_a_fixed_prefetch_stays() -> None:
    assert after(0.0, prefetch=3) == after(1.0, prefetch=3) == 13
