"""``make demo``: it shows what it says, and does not pretend."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "examples" / "demo.py"


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def test_the_demo_shows_everything_it_promises() -> None:
    done = run(str(DEMO))
    assert done.returncode == 0, done.stderr
    (files, tasks), *_ = re.findall(
        r"(\d+) files, (\d+) tasks, 2 worker processes, one SQLite file", done.stdout
    )
    assert int(tasks) == 3 * int(files) > 300
    for promised in (
        f"{tasks}/{tasks}",
        "The largest files",
        f"A report of {int(files) + 2} lines",
        "A task that failed twice: succeeded on attempt 2.",
        "A task with a countdown of 2 s: this ran later, as asked.",
        "it failed, as it should",
        "max-retries-exhausted",
        "the dead letter replayed (generation 1)",
        "'now it is here'",
        "(exit status [0, 0])",
    ):
        assert promised in done.stdout


#: The demo with one thing broken, and a pair of processes that are not workers.
BROKEN = """
import subprocess, sys
sys.path.insert(0, {folder!r})
import demo
{change}
sys.exit(demo.main())
"""


def broken(change: str) -> subprocess.CompletedProcess[str]:
    return run("-c", BROKEN.format(folder=str(DEMO.parent), change=change))


def test_a_worker_that_ends_badly_is_not_hidden() -> None:
    change = """
started = demo.start_workers
demo.start_workers = lambda folder: [*started(folder), subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])]
"""
    done = broken(change)
    assert done.returncode == 1
    assert "exit status [0, 0, 3]" in done.stdout


def test_a_task_that_fails_is_not_hidden() -> None:
    done = broken("demo.source_files = lambda: ['no such file.py']")
    assert done.returncode == 1
    assert "No such file" in done.stderr
