"""An application in a directory of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stem_core import Stem

HERE = str(Path(__file__).parent)
if HERE not in sys.path:
    sys.path.insert(0, HERE)

APP = """
import logging, os, time
from pathlib import Path
from stem_core import Stem, TaskContext

stem = Stem("sqlite:///jobs.db")

@stem.task(name="pid")
async def pid() -> int:
    return os.getpid()

@stem.task(name="slow")
def slow(seconds: float) -> int:
    Path(f"started-{os.getpid()}").touch()
    time.sleep(seconds)
    return os.getpid()

@stem.task(name="block")
async def block(seconds: float) -> None:
    time.sleep(seconds)

@stem.task(name="fail")
async def fail(ctx: TaskContext) -> None:
    ctx.log.warning("about to fail")
    raise ValueError("no reason")

@stem.task(name="child", isolation="process")
def child(ctx: TaskContext) -> int:
    ctx.log.warning("from the child")
    logging.getLogger("shop").info("in passing")
    return os.getpid()

@stem.task(name="die")
async def die() -> None:
    os._exit(3)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "jobs.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def stem(folder: Path) -> Iterator[Stem]:
    """A producer for the application; it knows no handler."""
    stem = Stem(f"sqlite:///{folder / 'jobs.db'}")
    yield stem
    stem.close_sync()
