"""``--processes``: real processes that are killed, replaced, drained, and started again when files change."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from processes import Running, alive, children

from stem_core import Stem
from stem_core.control import Control
from stem_core.operations.supervisor import Supervisor

HEALTH = ("jobs:stem", "--health-port=0", "--wait=0.5", "--drain-timeout=10")


def test_a_killed_process_is_replaced_and_health_tells(folder: Path, stem: Stem) -> None:
    with Running(folder, *HEALTH, "--processes=2") as worker:
        worker.answers("/healthz", 200)
        assert worker.answers("/readyz", 200).body == "ok\n"
        first, second = children(worker.log)
        handles = [stem.enqueue_sync("pid") for _ in range(10)]
        assert {handle.result_sync(timeout=30) for handle in handles} <= {first, second}
        worker.counts('stem_tasks_total{task="pid",queue="default",outcome="succeeded"}', 10)
        os.kill(first, signal.SIGKILL)
        problem = worker.answers("/healthz", 503).body
        assert "process 1" in problem or "process 2" in problem
        worker.said("ended with SIGKILL; again in")
        worker.said(r"has started \(pid", times=3)
        worker.answers("/healthz", 200)
        assert worker.metric("stem_supervisor_restarts_total") == 1
        # What the dead process had counted is not forgotten.
        worker.counts('stem_tasks_total{task="pid",queue="default",outcome="succeeded"}', 10)
        worker.signal(signal.SIGTERM)
        assert worker.ended() == 0
    assert not any(map(alive, children(worker.log)))


def test_sigterm_lets_running_tasks_end(folder: Path, stem: Stem) -> None:
    with Running(folder, *HEALTH, "--processes=2") as worker:
        worker.answers("/readyz", 200)
        handle = stem.enqueue_sync("slow", [1.0])
        worker.until(lambda: list(folder.glob("started-*")), "the task starts")
        worker.signal(signal.SIGTERM)
        assert worker.ended() == 0
        assert handle.result_sync(timeout=1) in children(worker.log)


def test_sigterm_while_starting_is_a_good_end(folder: Path) -> None:
    (folder / "late.py").write_text("import time\nopen('importing', 'w').close()\ntime.sleep(600)\n")
    with Running(folder, "late:stem", "--processes=2") as worker:
        worker.until((folder / "importing").exists, "it is being imported")
        worker.signal(signal.SIGTERM)
        assert worker.ended() == 0
    assert not any(map(alive, children(worker.log)))


def test_a_second_signal_hurries_and_the_task_runs_again(folder: Path, stem: Stem) -> None:
    with Running(folder, *HEALTH, "--processes=1", "--reload") as worker:
        worker.answers("/readyz", 200)
        stem.enqueue_sync("slow", [600.0])
        worker.until(lambda: list(folder.glob("started-*")), "the task starts")
        worker.signal(signal.SIGINT)
        worker.said("Stopping: running tasks have 10 s")
        begun = time.monotonic()
        worker.signal(signal.SIGINT)
        worker.ended()
        assert time.monotonic() - begun < 10 + 5, "the drain was not skipped"
    assert not any(map(alive, children(worker.log)))
    (counts,) = stem.run_sync(_counts)
    assert counts.ready + counts.leased == 1, "given back, or its lease ends"


async def _counts(wiring):
    return [await wiring.broker.stats("default")]


def test_processes_stop_when_their_supervisor_is_killed(folder: Path) -> None:
    with Running(folder, *HEALTH, "--processes=2") as worker:
        worker.answers("/healthz", 200)
        worker.signal(signal.SIGKILL)
        pids = children(worker.log)
        worker.until(lambda: not any(map(alive, pids)), "the orphans end")


def test_an_application_that_cannot_be_imported_ends_the_supervisor(folder: Path) -> None:
    (folder / "broken.py").write_text("import nothing_of_this_name")
    with Running(folder, "broken:stem", "--processes=2") as worker:
        assert worker.ended() == 2
    assert "importing 'broken' failed" in worker.log
    assert len(children(worker.log)) == 2


def test_a_crash_loop_of_processes_is_backed_off(folder: Path, stem: Stem) -> None:
    with Running(
        folder, *HEALTH, "--processes=1", "--max-tasks=1000", "--lease=1", "--max-deliveries=2"
    ) as worker:
        worker.answers("/readyz", 200)
        handle = stem.enqueue_sync("die")
        worker.said(r"Process 1 ended with exit status 3; again in", times=2)
        status = worker.until(lambda: (s := handle.status_sync()) and s.terminal and s, "the crash loop ends")
        assert status.reason == "crash-loop"
        worker.answers("/healthz", 200)


def test_recycling_starts_a_fresh_process_at_once(folder: Path, stem: Stem) -> None:
    with Running(folder, *HEALTH, "--max-tasks=3") as worker:
        worker.answers("/readyz", 200)
        pids = {stem.enqueue_sync("pid").result_sync(timeout=40) for _ in range(7)}
        assert len(pids) >= 2
        assert "again in" not in worker.log


def test_processes_shut_down_from_afar_stay_down_and_the_last_one_ends_it(folder: Path, stem: Stem) -> None:
    with Running(folder, *HEALTH, "--processes=2", "--name=here") as worker:
        worker.until(lambda: worker.metric("stem_worker_ready") == 2, "both are ready")
        stem.run_sync(lambda wiring: _shut_down(stem, ["here.1"]))
        worker.said("Process 1 was shut down and stays down")
        assert worker.ask("/healthz").status == 200
        stem.run_sync(lambda wiring: _shut_down(stem, []))
        assert worker.ended() == 0


async def _shut_down(stem: Stem, workers: list[str]) -> None:
    await Control(stem).shutdown(workers=workers)


def test_a_changed_file_is_loaded_again(folder: Path, stem: Stem) -> None:
    with Running(folder, *HEALTH, "--reload") as worker:
        worker.answers("/readyz", 200)
        jobs = folder / "jobs.py"
        jobs.write_text(jobs.read_text() + "\n@stem.task(name='new')\nasync def new() -> str: return 'new'\n")
        worker.said(r"Changed: .*jobs\.py")
        assert stem.enqueue_sync("new").result_sync(timeout=40) == "new"
        jobs.write_text(jobs.read_text() + "\nthis is no Python\n")
        worker.said("SyntaxError")
        jobs.write_text(jobs.read_text().replace("this is no Python", ""))
        assert stem.enqueue_sync("new").result_sync(timeout=40) == "new"
        worker.signal(signal.SIGTERM)
        assert worker.ended() == 0


async def test_a_process_that_cannot_be_started_just_now_is_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    commands = [["./no-such-program"], [sys.executable, "-c", "import sys; sys.exit(2)"]]
    supervisor = Supervisor(lambda number: commands.pop(0), processes=1, drain_timeout=1)
    caplog.set_level(logging.INFO, "stem.supervisor")
    assert await supervisor.run() == 2  # what the second one ended with
    assert "Process 1 could not be started: " in caplog.text
    assert commands == []
