"""``stem worker ls|ping|inspect|stats|pause|resume|shutdown`` against a worker of another process."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

STUBBORN = """
import asyncio
from pathlib import Path
from stem_core import Stem

stem = Stem("sqlite:///stubborn.db")

@stem.task(name="stay")
async def stay() -> None:
    Path("begun").touch()
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass
"""


def until(ask: Callable[[], Any], wanted: Callable[[Any], bool]) -> Any:
    deadline = time.monotonic() + 30
    while not wanted(answer := ask()):
        assert time.monotonic() < deadline, answer
        time.sleep(0.05)
    return answer


def test_a_worker_is_listed_asked_paused_and_stopped(shop: Any) -> None:
    def ask(*words: str) -> Any:
        return shop("worker", *words, "--app", "shop:stem", "--json").json

    assert ask("ls") == []
    worker = shop.spawn("worker", "shop:stem", "--name", "w1", "--drain-timeout", "1s")
    try:
        (only,) = until(lambda: ask("ls"), lambda found: len(found) == 1)
        assert (only["id"], only["pid"], only["queues"]) == ("w1", worker.pid, ["default"])
        (pong,) = ask("ping")["replies"]
        assert (pong["worker"], pong["answer"]) == ("w1", "pong")
        assert ask("ping", "--worker", "w2", "--timeout", "0.3s")["silent"] == ["w2"]
        assert ask("pause", "default", "--reason", "deploy") == {"queue": "default", "paused": True}
        assert shop("enqueue", "shop:stem", "add", "--args", "[1]").status == 0
        assert ask("resume", "default")["was_paused"] is True
        until(lambda: ask("stats")["replies"][0]["answer"]["succeeded"], lambda succeeded: succeeded == 1)
        (inspected,) = ask("inspect")["replies"]
        assert inspected["answer"]["running"] == []
        (stopped,) = ask("shutdown", "--mode", "soft")["replies"]
        assert stopped["answer"] == "soft"
        assert worker.wait(timeout=30) == 0
        done = shop("worker", "ls", "--app", "shop:stem")
        assert (done.status, done.out.strip()) == (1, "no worker lives")
    finally:
        worker.kill()
        worker.communicate()


def test_a_handler_that_swallows_its_cancellation_does_not_keep_the_process(shop: Any) -> None:
    (shop.folder / "stubborn.py").write_text(STUBBORN)
    assert shop("enqueue", "stubborn:stem", "stay").status == 0
    worker = shop.spawn("worker", "stubborn:stem", "--drain-timeout", "0.1s")
    try:
        until((shop.folder / "begun").exists, bool)
        worker.send_signal(signal.SIGTERM)
        _, said = worker.communicate(timeout=60)
    finally:
        worker.kill()
    assert worker.returncode == 0
    assert "Handlers are left that swallow their cancellation" in said
    (row,) = shop("queues", "default", "--app", "stubborn:stem", "--json").json
    assert (row["ready"], row["leased"]) == (1, 0)  # given back, to run elsewhere
