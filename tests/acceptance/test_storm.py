"""Chords while the workers that drive them are killed: every callback once in effect, results in order."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stem_core import Canvas, Stem
from stem_core.signature import Signature
from stem_core.status import TaskState
from tests.acceptance.conftest import PAIRS, Pair

WORKERS = 2
ROOT = Path(__file__).parent.parent.parent


class Workers:
    """Worker processes that are killed, one after another, and replaced."""

    def __init__(self, pair: Pair, pause: float) -> None:
        environment = {
            **os.environ,
            "STORM_PAUSE": str(pause),
            "STORM_BROKER": pair.broker,
            "STORM_BACKEND": pair.backend,
            "STORM_NAMESPACE": pair.namespace,
        }
        arguments = ["worker", "tests.acceptance.storm_app:stem", "--lease", "1", "--max-deliveries", "50"]
        command = [sys.executable, "-m", "stem_core.cli", *arguments, "--concurrency", "20"]
        self._start = lambda: subprocess.Popen(
            command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        self._running = [self._start() for _ in range(WORKERS)]
        self.kills = 0

    async def kill_every_second(self, stem: Stem) -> None:
        """Kill the oldest, once its replacement lives: a machine too busy to start one is no finding."""
        while True:
            await asyncio.sleep(1.0)
            self._running.append(self._start())
            while self._running[-1].pid not in {each.pid for each in await stem.control.workers()}:
                await asyncio.sleep(0.05)
            victim = self._running.pop(0)
            victim.send_signal(signal.SIGKILL)
            victim.wait()
            self.kills += 1

    def stop(self) -> None:
        for each in self._running:
            each.kill()
            each.wait()


@contextmanager
def workers(pair: Pair, pause: float) -> Iterator[Workers]:
    made = Workers(pair, pause)
    try:
        yield made
    finally:
        made.stop()


async def storm(pair: Pair, chords: int, members: int, pause: float, seconds: float, kills: int) -> None:
    """``pause``: how long a member takes; ``kills``: as many deaths at least, or it proves nothing."""
    stem = pair.make()
    async with stem:
        canvas = Canvas(stem)
        with workers(pair, pause) as running:
            killing = asyncio.create_task(running.kill_every_second(stem))
            try:
                handles = []
                for number in range(chords):
                    body = [Signature(name="member", args=(number * members + n,)) for n in range(members)]
                    handles.append(await canvas.chord(body, Signature(name="gather")))
                deadline = time.monotonic() + seconds
                for number, handle in enumerate(handles):
                    result = await handle.result(timeout=max(1.0, deadline - time.monotonic()))
                    assert result == list(range(number * members, (number + 1) * members))
                assert running.kills >= kills
            finally:
                killing.cancel()
        statuses = await stem.backend.fetch([handle.task.id for handle in handles])
        assert {(each.state, each.generation) for each in statuses} == {(TaskState.SUCCEEDED, 0)}
        stats = await stem.broker.stats("default")
        assert (stats.ready, stats.dead) == (0, 0)


@pytest.mark.parametrize("name", [name for name in PAIRS if name != "memory"])
async def test_a_small_storm(name: str, pair_of: Callable[[str], Pair]) -> None:
    await storm(pair_of(name), chords=8, members=30, pause=0.4, seconds=90, kills=1)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [name for name in PAIRS if name != "memory"])
async def test_a_hundred_chords_of_fifty(name: str, pair_of: Callable[[str], Pair]) -> None:
    await storm(pair_of(name), chords=100, members=50, pause=0.15, seconds=600, kills=5)
