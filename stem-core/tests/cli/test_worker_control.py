"""``stem worker ls|ping|inspect|stats|pause|resume|shutdown`` against a worker of another process."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

APP = """
import asyncio
from stem_core import Stem

stem = Stem("sqlite:///app.db")

@stem.task(name="nap")
async def nap(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds
"""


def stem(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stem_core.cli", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)


def answers(folder: Path, *words: str) -> Any:
    done = stem(folder, "worker", *words, "--app", "app:stem", "--json")
    return json.loads(done.stdout) if done.stdout else done.stderr


def until(ask: Any, wanted: Any) -> Any:
    deadline = time.monotonic() + 30
    while not wanted(answer := ask()):
        assert time.monotonic() < deadline, answer
    return answer


@pytest.mark.timeout(120)
def test_a_worker_is_listed_asked_paused_and_stopped(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(textwrap.dedent(APP))
    assert stem(tmp_path, "worker", "ls", "--app", "app:stem").returncode == 1
    command = [
        sys.executable,
        "-m",
        "stem_core.cli",
        "worker",
        "app:stem",
        "--name",
        "w1",
        "--drain-timeout",
        "1s",
    ]
    worker = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
    try:
        (only,) = until(lambda: answers(tmp_path, "ls"), lambda found: len(found) == 1)
        assert (only["id"], only["pid"], only["queues"]) == ("w1", worker.pid, ["default"])
        (pong,) = answers(tmp_path, "ping")["replies"]
        assert (pong["worker"], pong["answer"]) == ("w1", "pong")
        assert answers(tmp_path, "ping", "--worker", "w2", "--timeout", "0.3s")["silent"] == ["w2"]
        assert answers(tmp_path, "pause", "default", "--reason", "deploy") == {
            "queue": "default",
            "paused": True,
        }
        assert stem(tmp_path, "enqueue", "app:stem", "nap", "--args", "[0.0]").returncode == 0
        assert answers(tmp_path, "resume", "default")["was_paused"] is True
        until(
            lambda: answers(tmp_path, "stats")["replies"][0]["answer"]["succeeded"],
            lambda succeeded: succeeded == 1,
        )
        (inspected,) = answers(tmp_path, "inspect")["replies"]
        assert inspected["answer"]["running"] == []
        (stopped,) = answers(tmp_path, "shutdown", "--mode", "soft")["replies"]
        assert stopped["answer"] == "soft"
        assert worker.wait(timeout=30) == 0
        assert stem(tmp_path, "worker", "ls", "--app", "app:stem").returncode == 1
    finally:
        worker.kill()
        worker.wait()
