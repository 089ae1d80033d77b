"""What every group of broker laws stands on: the settings of a test class, and its lab."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any, ClassVar

import pytest

from stem_core.contracts.broker.lab import BrokerLab
from stem_core.contracts.driver import Driver
from stem_core.contracts.outage import Outage
from stem_core.contracts.pace import Pace
from stem_core.contracts.profile import Profile, choose
from stem_core.contracts.time import ManualTime, RealTime, Time
from stem_core.ports.specs import BrokerSpec

__all__ = ["BrokerBase"]


class BrokerBase:
    """Settings and fixtures; :class:`~stem_core.contracts.BrokerContract` explains them."""

    spec: ClassVar[BrokerSpec]
    clock: ClassVar[bool] = False
    profile: ClassVar[str | Profile | None] = None
    lease: ClassVar[float | None] = None
    settle: ClassVar[float | None] = None
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

    @pytest.fixture
    def connect(self) -> Callable[[], Awaitable[Any]] | None:
        """Opens a caller's own async connection with ``commit``, ``rollback`` and ``close``, for
        ``transactional_publish``; None where the adapter has none.
        """
        return None

    def time(self) -> Time:
        """The time one lab lives by; override it when your store's clock can be moved."""
        return ManualTime() if self.clock else RealTime()

    @property
    def budget(self) -> Profile:
        return choose(self.profile)

    def make_lab(self, url: str, *, once_ttl: float = 3600.0) -> BrokerLab:
        """A lab in a namespace of its own; close its driver."""
        time = self.time()
        pace = Pace(
            exact=time.exact,
            resolution=self.spec.capabilities.resolution,
            lease=self.lease,
            settle=self.settle,
            skew=self.skew,
            prompt=self.prompt,
        )
        return BrokerLab(Driver(time, once_ttl=once_ttl), self.spec, url, pace)

    @pytest.fixture
    def lab(self, url: str) -> Iterator[BrokerLab]:
        """A lab for one test."""
        lab = self.make_lab(url)
        with lab.driver:
            yield lab

    def needs(self, capability: str) -> None:
        """Skip the running test: the law binds only who declares ``capability``."""
        value = getattr(self.spec.capabilities, capability)
        if not value or (capability == "priority_levels" and value < 2):
            pytest.skip(f"not declared: {capability}")
