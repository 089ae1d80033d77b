"""``--reload``: which Python files have changed, by looking twice a second."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

__all__ = ["changes", "snapshot"]

#: Directories that hold no application code, besides hidden ones.
_SKIPPED: Final = {"__pycache__", "node_modules", "venv", "site-packages", "build", "dist"}


def snapshot(folders: Sequence[Path]) -> dict[str, int]:
    """The time of last change, in nanoseconds, of every ``.py`` file under ``folders``."""
    found: dict[str, int] = {}
    for folder in folders:
        for place, names, files in os.walk(folder):
            names[:] = [each for each in names if not each.startswith(".") and each not in _SKIPPED]
            for name in files:
                if name.endswith(".py"):
                    path = os.path.join(place, name)  # noqa: PTH118 - thousands of files, twice a second
                    try:
                        found[path] = os.stat(path).st_mtime_ns  # noqa: PTH116
                    except FileNotFoundError:
                        continue  # it went while we looked
    return found


async def changes(folders: Sequence[Path], every: float = 0.5) -> AsyncIterator[Sequence[str]]:
    """The files that were changed, added or removed since the last look; nothing while nothing is."""
    before = await asyncio.to_thread(snapshot, folders)
    while True:
        await asyncio.sleep(every)
        now = await asyncio.to_thread(snapshot, folders)
        if now != before:
            yield sorted(path for path in {*now, *before} if now.get(path) != before.get(path))
            before = now
