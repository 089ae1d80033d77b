"""Worker processes on SQLite that are killed, poisoned and stopped under load."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stem_core import Stem
from stem_core.status import TaskState

HERE = Path(__file__).parent


class Workers:
    """Worker processes on one store."""

    def __init__(self, directory: Path) -> None:
        self.url = f"sqlite:///{directory}/stem.db"
        self.log = directory / "ran.log"
        self.log.touch()
        self._alive: list[subprocess.Popen[bytes]] = []

    def start(self, **arguments: Any) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "STEM_KILL_URL": self.url, "STEM_KILL_LOG": str(self.log)}
        command = [sys.executable, str(HERE / "kill_main.py"), json.dumps(arguments)]
        process = subprocess.Popen(command, env=environment)
        self._alive.append(process)
        return process

    def close(self) -> None:
        for process in self._alive:
            process.kill()
            process.wait()


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    found = Workers(tmp_path)
    yield found
    found.close()


async def until_ended(stem: Stem, ids: list[str], seconds: float) -> bool:
    """Whether all have ended, after at most ``seconds``."""
    assert stem.backend is not None
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        statuses = await stem.backend.fetch(ids)
        if all(status is not None and status.terminal for status in statuses):
            return True
        await asyncio.sleep(0.1)
    return False


async def test_a_thousand_tasks_survive_a_kill_every_second(workers: Workers) -> None:
    async with Stem(workers.url) as stem:
        from kill_jobs import work, work_in_thread

        calls = [(work if n % 2 else work_in_thread).call(n) for n in range(1000)]
        ids = [handle.id for handle in await stem.enqueue_many(calls)]
        arguments = {"lease": 1, "max_deliveries": 50, "concurrency": 8, "threads": 4}
        alive = [workers.start(**arguments), workers.start(**arguments)]
        kills = 0
        # Every second; a little later each time, so that a machine too busy to start in time gets there too.
        while not await until_ended(stem, ids, 1.0 + kills / 20):
            victim = alive.pop(0)
            victim.send_signal(signal.SIGKILL)
            victim.wait()
            kills += 1
            assert kills < 60, "it never ends"
            alive.append(workers.start(**arguments))
        assert kills >= 1
        assert stem.backend is not None
        for n, status in enumerate(await stem.backend.fetch(ids)):
            assert status is not None
            assert (status.state, status.payload) == (TaskState.SUCCEEDED, str(n).encode())
        await at_rest(stem)
        stats = await stem.broker.stats("default")
        assert (stats.ready, stats.scheduled, stats.leased, stats.dead) == (0, 0, 0, 0)


async def test_a_poison_task_dies_alone(workers: Workers) -> None:
    async with Stem(workers.url) as stem:
        from kill_jobs import poison, slow

        calls: list[Any] = [slow.call(n) for n in range(200)]
        calls.insert(30, poison.call())
        handles = await stem.enqueue_many(calls)
        killer = handles.pop(30)
        arguments = {"lease": 1, "max_deliveries": 5, "concurrency": 100}
        deaths = 0
        process = workers.start(**arguments)
        while not await until_ended(stem, [killer.id, *(each.id for each in handles)], 0.3):
            if process.poll() is not None:
                assert process.returncode == 7
                deaths += 1
                assert deaths <= 5
                process = workers.start(**arguments)
        assert deaths == 5
        assert workers.log.read_text().split() == ["poison"] * 5
        assert stem.backend is not None
        for n, status in enumerate(await stem.backend.fetch([each.id for each in handles])):
            assert status is not None
            assert (status.state, status.payload) == (TaskState.SUCCEEDED, str(n).encode())
        status = await killer.status()
        assert status is not None
        assert (status.state, status.reason) == (TaskState.FAILED, "crash-loop")
        (dead,) = (await stem.broker.dead_list("default")).items
        assert (dead.message.id, dead.reason) == (killer.id, "crash-loop")


async def stopped_under_load(workers: Workers, signals: int, seed: int) -> None:
    """SIGTERM at any moment: what was claimed and not started was given back, the rest has ended."""
    chance = random.Random(seed)
    async with Stem(workers.url) as stem:
        from kill_jobs import slow, work_in_thread

        calls = [(slow if n % 2 else work_in_thread).call(n) for n in range(400)]
        ids = [handle.id for handle in await stem.enqueue_many(calls)]
        process = workers.start(concurrency=20, threads=2, drain_timeout=5, lease=30)
        while (await stem.broker.stats("default")).leased == 0:
            await asyncio.sleep(0.01)
        await asyncio.sleep(chance.uniform(0.0, 0.3))
        asked = time.monotonic()
        for _ in range(signals):
            process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.02)
        while process.poll() is None:
            assert time.monotonic() - asked < 7 + 8, (
                "it must exit within its drain and 2 s (and some for a busy machine)"
            )
            await asyncio.sleep(0.02)
        assert process.returncode == 0
        stats = await stem.broker.stats("default")
        assert stats.leased == 0, "nothing stays leased to a worker that stopped"
        assert stem.backend is not None
        statuses = await stem.backend.fetch(ids)
        done = [status for status in statuses if status is not None and status.terminal]
        assert all(status.state is TaskState.SUCCEEDED for status in done)
        assert len(done) + stats.ready + stats.scheduled == len(ids)
        left = []
        while batch := await stem.broker.receive(["default"], limit=500, lease=60, wait=0.0):
            left += batch
        assert len(left) == len(ids) - len(done)
        assert {each.deliveries for each in left} <= {1}, "a hand-out was wasted"
        assert {each.attempt for each in left} <= {0}


@pytest.mark.parametrize("signals", [1, 2])
async def test_sigterm_under_load_loses_and_wastes_nothing(workers: Workers, signals: int) -> None:
    await stopped_under_load(workers, signals, seed=signals)


@pytest.mark.long
@pytest.mark.parametrize("turn", range(30))
async def test_sigterm_under_load_thirty_times(workers: Workers, turn: int) -> None:
    await stopped_under_load(workers, 1 + turn % 2, seed=turn)


async def at_rest(stem: Stem) -> None:
    """Wait until the last settlements have arrived: an end is visible before its message is gone."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        stats = await stem.broker.stats("default")
        if not stats.leased and not stats.ready:
            return
        await asyncio.sleep(0.05)
