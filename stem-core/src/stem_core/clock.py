"""Time as a value one can pass in, so that tests own it."""

from __future__ import annotations

import asyncio
import functools
import heapq
import itertools
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

__all__ = ["Clock", "ManualClock", "SystemClock", "instant", "now_of", "seconds"]


class Clock(Protocol):
    """A source of time. Safe to share between threads."""

    def time(self) -> float:
        """Seconds since the epoch."""
        ...

    def wake_at(self, when: float, callback: Callable[[], None]) -> Callable[[], None]:
        """Call ``callback`` once when :meth:`time` has reached ``when``; returns a cancel function.

        Called from a running event loop. The callback may arrive on any thread, so it must be
        thread-safe and quick.
        """
        ...


class SystemClock:
    """The machine's clock."""

    def time(self) -> float:
        return time.time()

    def wake_at(self, when: float, callback: Callable[[], None]) -> Callable[[], None]:
        delay = max(0.0, when - time.time())
        return asyncio.get_running_loop().call_later(delay, callback).cancel


class ManualClock:
    """A clock that moves only when told to."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._now = start
        self._lock = threading.Lock()
        self._order = itertools.count()
        self._alarms: list[tuple[float, int, Callable[[], None]]] = []

    def time(self) -> float:
        return self._now

    def wake_at(self, when: float, callback: Callable[[], None]) -> Callable[[], None]:
        with self._lock:
            alarm = (when, next(self._order), callback)
            heapq.heappush(self._alarms, alarm)

        def cancel() -> None:
            with self._lock:
                if alarm in self._alarms:
                    self._alarms.remove(alarm)
                    heapq.heapify(self._alarms)

        return cancel

    def advance(self, seconds: float) -> None:
        """Move on by ``seconds`` and ring every alarm that is due, in order."""
        with self._lock:
            self._now += seconds
            due = []
            while self._alarms and self._alarms[0][0] <= self._now:
                due.append(heapq.heappop(self._alarms)[2])
        for callback in due:
            callback()


def now_of(clock: Clock) -> Callable[[], datetime]:
    """What answers the clock's time as an aware UTC datetime; of the machine's clock in one step."""
    if type(clock) is SystemClock:
        return functools.partial(datetime.now, UTC)
    return lambda: datetime.fromtimestamp(clock.time(), UTC)


def seconds(value: float | timedelta) -> float:
    """A duration as float seconds.

    :raises TypeError: it is neither a number nor a timedelta.
    """
    given: object = value  # whatever an application passed
    if isinstance(given, timedelta):
        return given.total_seconds()
    if not isinstance(given, float | int) or isinstance(given, bool):
        raise TypeError(f"{given!r} is not a duration; give seconds or a timedelta")
    return float(given)


def instant(value: float | datetime) -> datetime:
    """An aware UTC datetime, from epoch seconds or an aware datetime.

    :raises ValueError: the datetime is naive, or in UTC beyond what a datetime can be.
    """
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(
                f"{value!r} has no time zone; write datetime(..., tzinfo=timezone.utc) or "
                "datetime.now(timezone.utc)"
            )
        try:
            return value.astimezone(UTC)
        except OverflowError:
            raise ValueError(f"{value!r} is no instant of the years 1 to 9999 in UTC") from None
    return datetime.fromtimestamp(value, UTC)
