"""The contract every adapter keeps, on this one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from stem_core.contracts import BackendContract, BrokerContract, CommitterContract, Outage
from stem_redis.plugin import REDIS_BACKEND, REDIS_BROKER
from tests.servers import ValkeyServer


@pytest.fixture(scope="class")
def own_server() -> Iterator[ValkeyServer | None]:
    """A server that may go down; None where the tests were given one that is not ours."""
    if os.environ.get("STEM_TEST_REDIS_URL"):
        yield None
        return
    # Its file is written before each answer, and never kept waiting by a sync: a kill of the process loses nothing.
    with ValkeyServer(appendfsync="no") as server:
        yield server


class Given:
    """Pytest looks for a fixture in the class first, where the contract has its own."""

    @pytest.fixture
    def url(self, own_server: ValkeyServer | None, redis_url: str) -> str:
        return own_server.url if own_server else redis_url

    @pytest.fixture
    def outage(self, own_server: ValkeyServer | None) -> Outage | None:
        if own_server is None:
            return None

        @contextmanager
        def down() -> Iterator[None]:
            own_server.kill()
            try:
                yield
            finally:
                own_server.start()

        return down


class TestRedisBroker(Given, BrokerContract):
    spec = REDIS_BROKER
    settle = 0.03


class TestRedisBackend(Given, BackendContract):
    spec = REDIS_BACKEND
    settle = 0.03


class TestRedisCommitter(Given, CommitterContract):
    broker = REDIS_BROKER
    backend = REDIS_BACKEND
    settle = 0.03
