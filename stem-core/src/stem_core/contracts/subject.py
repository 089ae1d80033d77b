"""A contract class for an installed adapter, from its URL or id."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import pytest

from stem_core.clock import ManualClock
from stem_core.contracts.backend import BackendContract
from stem_core.contracts.broker import BrokerContract
from stem_core.contracts.committer import CommitterContract
from stem_core.contracts.driver import Driver, unique
from stem_core.contracts.encoder import EncoderContract
from stem_core.contracts.outage import Outage
from stem_core.contracts.pace import LONG
from stem_core.contracts.signer import SignerContract
from stem_core.contracts.time import ManualTime
from stem_core.envelope import Message
from stem_core.errors import StemError, UnsupportedCapability
from stem_core.plugins import Catalogue
from stem_core.ports.specs import BackendSpec, BrokerSpec
from stem_core.status import StatusUpdate, TaskState
from stem_core.url import scheme_of

__all__ = ["KINDS", "Kind", "kinds_of", "lives_by_the_clock", "subject"]

Kind = Literal["broker", "backend", "committer", "encoder", "signer"]
KINDS: tuple[Kind, ...] = ("broker", "backend", "committer", "encoder", "signer")
T = TypeVar("T")


def kinds_of(catalogue: Catalogue, name: str) -> tuple[Kind, ...]:
    """Which contracts apply to a URL, or to the id of an encoder or signer.

    :raises ConfigurationError: nothing of that name is installed.
    """
    if "://" not in name:
        if name in catalogue.signers:
            return ("signer",)
        catalogue.encoder(name)
        return ("encoder",)
    scheme = scheme_of(name)
    found: list[Kind] = []
    if scheme in catalogue.brokers:
        found.append("broker")
    if scheme in catalogue.backends:
        found.append("backend")
    if not found:
        catalogue.broker(name)  # says what is installed
    if len(found) == 2 and _joins(catalogue, name):
        found.append("committer")
    return tuple(found)


def _joins(catalogue: Catalogue, url: str) -> bool:
    with Driver(ManualTime()) as driver:
        try:
            broker = driver.broker(catalogue.broker(url), url)
            return broker.join(driver.backend(catalogue.backend(url), url)) is not None
        except StemError:
            return False


def subject(
    catalogue: Catalogue,
    kind: Kind,
    name: str,
    profile: str,
    environment: dict[str, str],
    outage: Outage | None = None,
) -> type[Any]:
    """The contract class that tests ``name`` as ``kind``; ``outage``: of its server."""
    fields: dict[str, Any] = {"profile": profile, "environment": environment}
    if kind == "signer":
        return type("TestSubject", (SignerContract,), {**fields, "spec": catalogue.signer(name)})
    if kind == "encoder":
        fields["spec"] = catalogue.encoder(name)
        made: type[Any] = type("TestSubject", (EncoderContract,), fields)
        made.deterministic = _repeats_itself(made())
        return made

    @pytest.fixture
    def url(_: Any) -> str:
        return name

    fields = {"url": url, "profile": profile}
    if outage is not None:
        fields["outage"] = pytest.fixture(lambda _: outage)
    if kind == "committer":
        broker = catalogue.broker(name)
        fields |= {
            "broker": broker,
            "backend": catalogue.backend(name),
            "clock": lives_by_the_clock(broker, name),
        }
        return type("TestSubject", (CommitterContract,), fields)
    found = catalogue.broker(name) if kind == "broker" else catalogue.backend(name)
    fields |= {"spec": found, "clock": lives_by_the_clock(found, name)}
    return type("TestSubject", (BrokerContract if kind == "broker" else BackendContract,), fields)


def _repeats_itself(case: EncoderContract) -> bool:
    """False for who uses a nonce: no spec says so, and who does never claimed that equal values give equal bytes."""
    encoder = case.spec.open(case.environment)
    return len({case.encode(encoder, b"" if case.spec.kind == "bytes" else None) for _ in range(8)}) == 1


def lives_by_the_clock(spec: BrokerSpec | BackendSpec, url: str) -> bool:
    """Whether an hour passes in the store when ``AdapterOptions.clock`` says so; then no test need wait."""
    time = ManualTime()
    clock = time.clock
    assert isinstance(clock, ManualClock)
    with Driver(time) as driver:
        if isinstance(spec, BrokerSpec):
            broker, queue = driver.broker(spec, url), unique("q")
            driver.run(broker.publish([Message(id="clock", queue=queue, sealed=b"")]))
            driver.run(broker.receive([queue], limit=1, lease=LONG, wait=0.0))
            clock.advance(LONG + 1.0)
            return bool(driver.run(broker.receive([queue], limit=1, lease=LONG, wait=0.0)))
        backend = driver.backend(spec, url)
        try:
            return abs(driver.run(backend.state_read("clock")).now.timestamp() - time.now()) < 1.0
        except UnsupportedCapability:
            driver.run(backend.record([StatusUpdate(id="clock", state=TaskState.QUEUED, ttl=LONG)]))
            clock.advance(LONG + 1.0)
            return driver.run(backend.fetch(["clock"])) == [None]
