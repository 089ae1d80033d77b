"""Handlers of workers that are killed. The URL comes from the environment, a file gathers what ran."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from stem_core import Stem

stem = Stem(os.environ.get("STEM_KILL_URL", "memory://"))


def note(word: str) -> None:
    """Append a line, atomically."""
    with Path(os.environ["STEM_KILL_LOG"]).open("a", encoding="utf-8") as file:
        file.write(word + "\n")


@stem.task
async def work(n: int) -> int:
    await asyncio.sleep(0.02)
    return n


@stem.task
def work_in_thread(n: int) -> int:
    time.sleep(0.02)
    return n


@stem.task
def poison() -> None:
    note("poison")
    os._exit(7)


@stem.task
async def slow(n: int) -> int:
    await asyncio.sleep(0.05)
    return n
