"""What every group of backend laws stands on: the settings of a test class, and its lab."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from functools import partial
from typing import Any, ClassVar, TypeVar

import pytest

from stem_core.contracts.backend.lab import BackendLab
from stem_core.contracts.concurrently import in_rounds, together
from stem_core.contracts.driver import Driver
from stem_core.contracts.laws import broken
from stem_core.contracts.outage import Outage
from stem_core.contracts.pace import Pace
from stem_core.contracts.profile import Profile, choose
from stem_core.contracts.time import ManualTime, RealTime, Time
from stem_core.ports.backend import Backend
from stem_core.ports.specs import BackendSpec

__all__ = ["BackendBase"]

T = TypeVar("T")


class BackendBase:
    """Settings and fixtures; :class:`~stem_core.contracts.BackendContract` explains them."""

    spec: ClassVar[BackendSpec]
    clock: ClassVar[bool] = False
    profile: ClassVar[str | Profile | None] = None
    lease: ClassVar[float | None] = None
    settle: ClassVar[float | None] = None
    resolution: ClassVar[float] = 0.001
    skew: ClassVar[float] = 0.0
    prompt: ClassVar[float] = 10.0

    @pytest.fixture
    def url(self) -> str:
        """The URL of a store of its own. Override it."""
        raise NotImplementedError(f"{type(self).__name__} must override the fixture 'url'")

    @pytest.fixture
    def outage(self) -> Outage | None:
        """A function giving a context manager in which the store cannot be reached; None where none can be lost."""
        return None

    def time(self) -> Time:
        """The time one lab lives by; override it when your store's clock can be moved."""
        return ManualTime() if self.clock else RealTime()

    @property
    def budget(self) -> Profile:
        return choose(self.profile)

    def make_lab(self, url: str) -> BackendLab:
        """A lab in a namespace of its own; close its driver."""
        time = self.time()
        pace = Pace(
            exact=time.exact,
            resolution=self.resolution,
            lease=self.lease,
            settle=self.settle,
            skew=self.skew,
            prompt=self.prompt,
        )
        return BackendLab(Driver(time), self.spec, url, pace)

    @pytest.fixture
    def lab(self, url: str) -> Iterator[BackendLab]:
        """A lab for one test."""
        lab = self.make_lab(url)
        with lab.driver:
            yield lab

    def needs(self, capability: str) -> None:
        """Skip the running test: the law binds only who declares ``capability``."""
        if not getattr(self.spec.capabilities, capability):
            pytest.skip(f"not declared: {capability}")

    def at_once(self, lab: BackendLab, *works: Callable[[Backend], Coroutine[Any, Any, T]]) -> list[T]:
        """Each work with a client of its own, at the same time."""
        threads = self.spec.capabilities.multi_process
        return together(partial(_opened, lab), works, threads=threads, run=lab.driver.run)

    def rounds(
        self, lab: BackendLab, count: int, *works: Callable[[Backend, int], Coroutine[Any, Any, T]]
    ) -> list[list[T]]:
        """As :meth:`at_once`, ``count`` times over; the answers of each round."""
        threads = self.spec.capabilities.multi_process
        return in_rounds(partial(_opened, lab), works, count, threads=threads, run=lab.driver.run)

    async def within(self, work: Awaitable[T]) -> T:
        """What ``work`` answers, promptly; it fails no good adapter on a busy machine."""
        try:
            return await asyncio.wait_for(work, self.prompt)
        except TimeoutError:
            broken(22, f"nothing happened within {self.prompt} s")


async def _opened(lab: BackendLab) -> Backend:
    backend = lab.spec.open(lab.url, lab.driver.options())
    await backend.open()
    return backend
