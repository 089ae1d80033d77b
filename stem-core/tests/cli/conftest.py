"""An application in a directory of its own, and the command line in this process or in one of its own."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from stem_core.cli import main

APP = """
import os
from stem_core import Stem, TaskContext

stem = Stem(os.environ.get("SHOP_URL", "sqlite:///shop.db"), namespace=os.environ.get("SHOP_NAME", "stem"))
not_a_stem = 7

def fill(state):
    state["pool"] = "a pool"

@stem.task(name="add")
async def add(x: int, y: int = 0) -> int:
    return x + y

@stem.task(name="pool")
async def pool(ctx: TaskContext) -> str:
    return ctx.state["pool"]

@stem.task(name="fail", queue="mail")
def fail(why: str) -> None:
    raise ValueError(why)
"""


class Done(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Shop:
    """The application, and ``stem`` beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *words: str) -> Done:
        """Run a command in this process."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = main(words)
            except SystemExit as exit:
                status = exit.code if isinstance(exit.code, int) else 1
        return Done(status, out.getvalue(), err.getvalue())

    def spawn(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command as a process."""
        command = [sys.executable, "-m", "stem_core.cli", *words]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(self.folder)},
            text=True,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        )

    def process(self, *words: str) -> Done:
        """Run a command as a process, to its end."""
        with self.spawn(*words) as process:
            out, err = process.communicate(timeout=60)
        return Done(process.returncode, out, err)

    def work(self, *words: str) -> Done:
        """Do everything there is to do."""
        done = self.process("worker", "shop:stem", "--queue=default", "--queue=mail", "--until-empty", *words)
        assert done.status == 0, done.err
        return done


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Processes started here can be interrupted.

    A shell without job control starts what it puts in the background (``make test &``) with SIGINT ignored, and
    that is inherited all the way down; a handler of our own is not.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interruptible: None) -> Iterator[Shop]:
    (tmp_path / "shop.py").write_text(APP)
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\n")
    (tmp_path / "syntax.py").write_text("def (:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in list(os.environ):
        if name.startswith(("STEM_BROKER", "STEM_BACKEND", "STEM_SIGNING", "STEM_NAMESPACE", "STEM_PLUGINS")):
            monkeypatch.delenv(name)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield Shop(tmp_path)
    root.handlers[:] = handlers  # a worker's command sends every log to standard error
    root.setLevel(level)
    for name in ("shop", "wishes", "away"):
        sys.modules.pop(name, None)
