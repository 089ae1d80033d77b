"""Stems on memory and SQLite, a look at what was published, and adapters that lack or refuse things."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stem_core import BackendCapabilities, BrokerCapabilities, Stem
from stem_core.builtin.plugin import MEMORY_BACKEND, MEMORY_BROKER
from stem_core.envelope import Ack, Delivery, Envelope, Message, Settlement
from stem_core.ports.specs import AdapterOptions


class Broker:
    """The memory broker seen through a hole: capabilities taken away, faults put in, calls counted.

    ``faults`` are raised by the next publishes, in order (None: no fault); ``after`` is raised when it is stored.
    """

    def __init__(self, options: AdapterOptions, **changes: Any) -> None:
        self.capabilities: BrokerCapabilities = dataclasses.replace(MEMORY_BROKER.capabilities, **changes)
        self.inner = MEMORY_BROKER.open("memory://", options)
        self.published: list[list[Message]] = []
        self.faults: list[BaseException | None] = []
        self.refuse: Callable[[Message], BaseException | None] = lambda _: None
        self.gate: asyncio.Event | None = None
        self.stored_first = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def join(self, backend: Any) -> None:
        return None

    async def publish(self, messages: Sequence[Message]) -> Sequence[bool]:
        self.published.append(list(messages))
        if self.gate is not None:
            await self.gate.wait()
        fault = self.faults.pop(0) if self.faults else None
        for message in messages:
            fault = fault or self.refuse(message)
        if fault is not None and not self.stored_first:
            raise fault
        for message in messages:
            # A broker without delay holds nothing back and must not be asked to.
            assert self.capabilities.delay or (message.not_before is None and message.delay == 0)
            assert message.priority < self.capabilities.priority_levels
            assert self.capabilities.routing or not message.route
        answer = await self.inner.publish([msgspec.structs.replace(each, route={}) for each in messages])
        if fault is not None:
            raise fault
        return answer


class Backend:
    """The memory backend with capabilities taken away, and calls counted."""

    def __init__(self, options: AdapterOptions, **changes: Any) -> None:
        self.capabilities: BackendCapabilities = dataclasses.replace(MEMORY_BACKEND.capabilities, **changes)
        self.inner = MEMORY_BACKEND.open("memory://", options)
        self.faults: list[BaseException | None] = []
        self.recorded = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def record(self, updates: Sequence[Any]) -> Sequence[bool]:
        self.recorded += 1
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            raise fault
        return await self.inner.record(updates)


@dataclasses.dataclass
class Lab:
    """A Stem on two separate wrapped adapters."""

    stem: Stem
    broker: Broker
    backend: Backend


MakeLab = Callable[..., Awaitable[Lab]]


@pytest.fixture
async def lab() -> AsyncIterator[MakeLab]:
    """``await lab(broker={"delay": False}, backend={"state": False}, **arguments of Stem)``."""
    made: list[Stem] = []

    async def make(
        broker: dict[str, Any] | None = None, backend: dict[str, Any] | None = None, **arguments: Any
    ) -> Lab:
        options = AdapterOptions()
        lab_broker, lab_backend = Broker(options, **(broker or {})), Backend(options, **(backend or {}))
        stem = Stem(lab_broker, backend=lab_backend, **arguments)  # type: ignore[arg-type]
        await stem.open()
        made.append(stem)
        return Lab(stem, lab_broker, lab_backend)

    yield make
    for stem in made:
        await stem.close()


@pytest.fixture(params=["memory", "sqlite"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'stem.db'}"


@pytest.fixture
async def stem(store_url: str) -> AsyncIterator[Stem]:
    async with Stem(store_url) as stem:
        yield stem


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    import os

    for name in list(os.environ):
        if name.startswith("STEM_"):
            monkeypatch.delenv(name)
    return monkeypatch  # type: ignore[return-value]


async def _take(stem: Stem, queue: str = "default", limit: int = 100) -> list[tuple[Delivery, Envelope]]:
    found = await stem.broker.receive([queue], limit=limit, lease=30, wait=0)
    await stem.broker.settle([Settlement(each.receipt, Ack()) for each in found])
    return [(each, stem.wiring.unseal(each.message.sealed)) for each in found]


@pytest.fixture
def take() -> Callable[..., Awaitable[list[tuple[Delivery, Envelope]]]]:
    """``await take(stem, queue)``: what is ready there, acked, with its envelope."""
    return _take


Enqueue = Callable[..., Awaitable[Any]]


@pytest.fixture(params=["async", "sync"])
def way(request: pytest.FixtureRequest) -> Callable[[Any, Any], Awaitable[Any]]:
    """Enqueue a call by the async method, or by its sync twin from a thread."""

    async def enqueue(stem: Stem, call: Any, **arguments: Any) -> Any:
        if request.param == "async":
            return await stem.enqueue_call(call, **arguments)
        return await asyncio.to_thread(stem.enqueue_call_sync, call, **arguments)

    return enqueue
