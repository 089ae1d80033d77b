"""SIGTERM and SIGINT while a worker runs."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

__all__ = ["StopSignals"]

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """Counts them while entered, and puts back what was before. In other than the main thread it does nothing."""

    def __init__(self, on_signal: Callable[[int], None]) -> None:
        """:param on_signal: called on the loop with how many have come so far."""
        self._on_signal = on_signal
        self._count = 0
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            loop = asyncio.get_running_loop()
            for number in _SIGNALS:
                self._before[number] = signal.getsignal(number)
                loop.add_signal_handler(number, self._received)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._before:
            return
        loop = asyncio.get_running_loop()
        for number, handler in self._before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before.clear()

    def _received(self) -> None:
        self._count += 1
        self._on_signal(self._count)
