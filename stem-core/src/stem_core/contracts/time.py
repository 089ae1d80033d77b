"""The time an adapter under test lives by: owned by the suite where it can be, else the real one."""

from __future__ import annotations

import time
from typing import NamedTuple, Protocol

from stem_core.clock import Clock, ManualClock, SystemClock

__all__ = ["ManualTime", "RealTime", "Span", "Time"]


class Span(NamedTuple):
    """When something happened, in epoch seconds: not before ``lo``, not after ``hi``."""

    lo: float
    hi: float

    def plus(self, seconds: float) -> Span:
        return Span(self.lo + seconds, self.hi + seconds)


class Time(Protocol):
    """Supply one (``BrokerContract.time``) when your store has a clock that tests can move."""

    exact: bool
    """Whether time stands still except in :meth:`pass_`."""
    clock: Clock
    """What ``AdapterOptions.clock`` is set to."""

    def now(self) -> float:
        """The store's clock, in epoch seconds."""
        ...

    def pass_(self, seconds: float) -> float:
        """Let ``seconds`` pass; returns how many of them the caller must still sleep."""
        ...


class ManualTime:
    """For adapters that live by ``AdapterOptions.clock``: no test waits."""

    exact = True

    def __init__(self) -> None:
        self._manual = ManualClock(1_700_000_000.777)  # no whole second: rounding must show
        self.clock: Clock = self._manual

    def now(self) -> float:
        return self._manual.time()

    def pass_(self, seconds: float) -> float:
        self._manual.advance(seconds)
        return 0.0


class RealTime:
    """For adapters that live by a server's clock, taken to agree with this machine's."""

    exact = False

    def __init__(self) -> None:
        self.clock: Clock = SystemClock()

    def now(self) -> float:
        return time.time()

    def pass_(self, seconds: float) -> float:
        return seconds
