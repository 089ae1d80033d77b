"""What every contender shares, in its own interpreter: a counter that its tasks tick, and the producer's loop.

Only the standard library, because the peers live in environments of their own. A task calls ``tick()``; each process
that runs tasks owns a slot of a shared file, so that neither a broker nor a lock is asked.

The file: bytes 0 to 7 the number of slots taken (under ``flock``), then slots of three int64: tasks started, and the
monotonic nanoseconds of the first and the last start.
"""

from __future__ import annotations

import asyncio
import fcntl
import inspect
import json
import mmap
import os
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

__all__ = ["URL", "Seen", "look", "prepare", "serve", "tick"]

URL = os.environ.get("PEER_URL", "")
_PATH = os.environ.get("PEER_COUNTER", "")
_SLOTS = 20_000  # RQ forks for every job, and each fork takes one
_SLOT = struct.Struct("=qqq")
_HEAD = struct.Struct("=q")
_PATIENCE = 60.0


class Seen(NamedTuple):
    """Tasks started so far, and when the first and the last of them did (monotonic nanoseconds)."""

    count: int
    first: int
    last: int


class _Slot:
    """The slot of one process: taken at its first task, anew after a fork."""

    def __init__(self, path: str) -> None:
        self._file = Path(path).open("r+b")  # noqa: SIM115 - for the life of the process
        self._map = mmap.mmap(self._file.fileno(), 0)
        self._lock = threading.Lock()
        self._pid = 0
        self._at = 0

    def tick(self) -> None:
        now = time.monotonic_ns()
        with self._lock:
            if self._pid != os.getpid():
                self._take()
            count, first, _ = _SLOT.unpack_from(self._map, self._at)
            _SLOT.pack_into(self._map, self._at, count + 1, first or now, now)

    def _take(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            (taken,) = _HEAD.unpack_from(self._map)
            self._at = _HEAD.size + taken * _SLOT.size
            _HEAD.pack_into(self._map, 0, taken + 1)
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        self._pid = os.getpid()


def prepare(path: Path) -> None:
    """An empty counter."""
    path.write_bytes(bytes(_HEAD.size + _SLOTS * _SLOT.size))


def look(path: Path) -> Seen:
    """The sum of all slots."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as shared:
        (taken,) = _HEAD.unpack_from(shared)
        slots = [_SLOT.unpack_from(shared, _HEAD.size + index * _SLOT.size) for index in range(taken)]
    used = [slot for slot in slots if slot[0]]
    if not used:
        return Seen(0, 0, 0)
    return Seen(sum(slot[0] for slot in used), min(slot[1] for slot in used), max(slot[2] for slot in used))


tick: Callable[[], None] = _Slot(_PATH).tick if _PATH else lambda: None


def serve(enqueue: Callable[[], object]) -> None:
    """Answer the harness: ``enqueue N`` with the seconds it took, ``latency N`` with N times in seconds.

    ``enqueue`` sends one no-op task the way the library's guide does; it may be a coroutine function.
    """
    asyncio.run(_answer(enqueue))


async def _answer(enqueue: Callable[[], object]) -> None:
    for line in sys.stdin:
        word, number = line.split()
        if word == "enqueue":
            start = time.perf_counter()
            for _ in range(int(number)):
                await _one(enqueue)
            print(json.dumps(time.perf_counter() - start), flush=True)
        else:
            print(json.dumps([await _hop(enqueue) for _ in range(int(number))]), flush=True)


async def _one(enqueue: Callable[[], object]) -> None:
    made = enqueue()
    if inspect.isawaitable(made):
        await made


async def _hop(enqueue: Callable[[], object]) -> float:
    """Seconds from the call of ``enqueue`` to the first line of the task."""
    path = Path(_PATH)
    before = look(path).count
    start = time.monotonic_ns()
    await _one(enqueue)
    while (seen := look(path)).count == before:  # the worker is another process
        if time.monotonic_ns() - start > _PATIENCE * 1e9:
            raise TimeoutError(f"a task was not started within {_PATIENCE:g} seconds")
        await asyncio.sleep(0.0005)
    return (seen.last - start) / 1e9
