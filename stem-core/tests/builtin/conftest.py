"""Both built-in stores, opened as a Stem opens them, on a clock the test owns."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from stem_core.builtin import plugin
from stem_core.clock import Clock, ManualClock
from stem_core.ports import AdapterOptions, Backend, Broker, Committer


class Store:
    """A broker, a backend and their committer in one store."""

    def __init__(self, scheme: str, broker: Broker, backend: Backend) -> None:
        committer = broker.join(backend)
        assert committer is not None
        self.scheme = scheme
        self.broker = broker
        self.backend = backend
        self.committer: Committer = committer


Opener = Callable[..., Awaitable[Store]]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "sqlite"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def opener(scheme: str, tmp_path: Path, clock: ManualClock, unique_name: str) -> AsyncIterator[Opener]:
    """Opens the test's store, as often as asked, with any options."""
    opened: list[Store] = []
    keep: list[AdapterOptions] = []

    async def open_store(*, namespace: str = "stem", once_ttl: float = 3600.0, of: Clock = clock) -> Store:
        options = AdapterOptions(namespace=namespace, clock=of, once_ttl=once_ttl)
        keep.append(options)
        if scheme == "memory":
            url, broker, backend = f"memory://{unique_name}", plugin.MEMORY_BROKER, plugin.MEMORY_BACKEND
        else:
            url = f"sqlite:///{tmp_path}/store.db"
            broker, backend = plugin.SQLITE_BROKER, plugin.SQLITE_BACKEND
        pair = broker.open(url, options), backend.open(url, options)
        for each in pair:
            await each.open()
        opened.append(Store(scheme, *pair))
        return opened[-1]

    yield open_store
    for store in opened:
        await store.broker.close()
        await store.backend.close()


@pytest.fixture
async def store(opener: Opener) -> Store:
    return await opener()
