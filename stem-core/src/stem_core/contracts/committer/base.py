"""What the groups of committer laws stand on: the settings of a test class, and its lab."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import pytest

from stem_core.contracts.backend.lab import Desk
from stem_core.contracts.broker.lab import BrokerLab, Client
from stem_core.contracts.driver import Driver
from stem_core.contracts.laws import check
from stem_core.contracts.outage import Outage
from stem_core.contracts.pace import Pace
from stem_core.contracts.profile import Profile, choose
from stem_core.contracts.time import ManualTime, RealTime, Time
from stem_core.envelope import Delivery
from stem_core.ports.backend import Outcome
from stem_core.ports.committer import Committer, Step
from stem_core.ports.specs import BackendSpec, BrokerSpec
from stem_core.status import StatusUpdate, TaskError, TaskState

__all__ = ["BAD", "GOOD", "CommitLab", "CommitterBase", "done", "running"]

GOOD = Outcome(TaskState.SUCCEEDED, b"\0good", "json")
BAD = Outcome(TaskState.FAILED, error=TaskError("E", "bad"))


class CommitLab(BrokerLab):
    """A broker, a backend and the committer that joins them, in one namespace."""

    def __init__(
        self, driver: Driver, broker: BrokerSpec, backend: BackendSpec, url: str, backend_url: str, pace: Pace
    ) -> None:
        super().__init__(driver, broker, url, pace)
        self.backend_spec = backend
        self.backend_url = backend_url

    def desk(self, *, namespace: str | None = None) -> Desk:
        return Desk(
            self.driver, self.driver.backend(self.backend_spec, self.backend_url, namespace=namespace)
        )

    def joined(self, *, namespace: str | None = None) -> tuple[Client, Desk, Committer]:
        """An open broker and backend, and their committer, which must be there."""
        client, desk = self.client(namespace=namespace), self.desk(namespace=namespace)
        committer = client.broker.join(desk.backend)
        if committer is None:
            pytest.fail(
                f"{self.spec.name} does not join {self.backend_spec.name} at one URL; it has no committer"
            )
        return client, desk, committer

    def commit(self, committer: Committer, *steps: Step) -> list[bool]:
        answers = list(self.driver.run(committer.commit(steps)))
        check(len(answers) == len(steps), 30, f"{len(steps)} steps, {len(answers)} answers")
        return answers

    def leased(self, client: Client) -> Delivery:
        """A fresh message, leased."""
        client.publish(self.message())
        return client.one(self.queue)


def running(id: str) -> StatusUpdate:
    return StatusUpdate(id=id, state=TaskState.RUNNING, name="n")


def done(id: str, state: TaskState = TaskState.SUCCEEDED, payload: bytes | None = b"\0r") -> StatusUpdate:
    return StatusUpdate(id=id, state=state, payload=payload, encoder="json")


class CommitterBase:
    """Settings and fixtures; :class:`~stem_core.contracts.CommitterContract` explains them."""

    broker: ClassVar[BrokerSpec]
    backend: ClassVar[BackendSpec]
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
    def backend_url(self, url: str) -> str:
        return url

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

    def make_lab(self, url: str, backend_url: str) -> CommitLab:
        """A lab in a namespace of its own; close its driver."""
        time = self.time()
        pace = Pace(
            exact=time.exact,
            resolution=self.broker.capabilities.resolution,
            lease=self.lease,
            settle=self.settle,
            skew=self.skew,
            prompt=self.prompt,
        )
        return CommitLab(Driver(time), self.broker, self.backend, url, backend_url, pace)

    @pytest.fixture
    def lab(self, url: str, backend_url: str) -> Iterator[CommitLab]:
        """A lab for one test."""
        lab = self.make_lab(url, backend_url)
        with lab.driver:
            yield lab

    def needs_groups(self) -> None:
        if not self.backend.capabilities.groups:
            pytest.skip("not declared: groups")
