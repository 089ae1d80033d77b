"""Tells when the event loop stands still, and who holds it.

A thread watches a beat that the loop gives. When it is late, the stack of the loop's thread is logged: the
handler that blocks is in it.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable

__all__ = ["LoopWatchdog"]

_log = logging.getLogger("stem.worker")


class LoopWatchdog:
    """Watches the loop it was started on. Renewing leases depends on the loop's turning."""

    def __init__(self, longest: float, on_block: Callable[[], None]) -> None:
        """:param longest: seconds without a beat that are reported, once per block."""
        self._longest = longest
        self._on_block = on_block
        self._beat = time.monotonic()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._watched = 0

    def start(self) -> None:
        """Watch the running loop."""
        self._watched = threading.get_ident()
        self._loop = asyncio.get_running_loop()
        self._give_beat()
        self._thread = threading.Thread(target=self._watch, name="stem-loop-watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop watching."""
        self._stopped.set()
        if self._timer is not None:
            self._timer.cancel()

    @property
    def late(self) -> float:
        """Seconds since the last beat that are more than there should be."""
        return max(0.0, time.monotonic() - self._beat - self._longest / 4)

    def _give_beat(self) -> None:
        self._beat = time.monotonic()
        self._timer = self._loop.call_later(self._longest / 4, self._give_beat)

    def _watch(self) -> None:
        reported = 0.0
        while not self._stopped.wait(self._longest / 4):
            beat = self._beat
            silent = time.monotonic() - beat
            if silent < self._longest or beat == reported:
                continue
            reported = beat
            frame = sys._current_frames().get(self._watched)  # noqa: SLF001 - the one way to see another thread
            stack = _inside_the_loop(traceback.format_stack(frame)) if frame is not None else "(gone)\n"
            _log.error(
                "The event loop has not turned for %.1f s: a handler blocks it, and leases cannot be renewed. Make the "
                "task a plain function (it runs in a thread) or await. It stands here:\n%s",
                silent,
                stack,
            )
            self._on_block()


def _inside_the_loop(stack: list[str]) -> str:
    """The frames the loop called: how the program came to run its loop is nobody's question now."""
    starts = [index for index, line in enumerate(stack) if "asyncio/events.py" in line]
    return "".join(stack[starts[-1] + 1 :] if starts else stack)
