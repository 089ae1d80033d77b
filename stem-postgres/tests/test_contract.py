"""The conformance suite on PostgreSQL: every law of broker, backend and committer."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest

from stem_core.contracts import BackendContract, BrokerContract, CommitterContract, Outage
from stem_postgres.plugin import POSTGRES_BACKEND, POSTGRES_BROKER
from tests.servers import PostgresServer

SETTLE = 0.02  # what is due can be claimed at once; the suite need not wait for it


class Given:
    """Pytest looks for a fixture in the class first, where the contract has its own."""

    @pytest.fixture
    def outage(self, request: pytest.FixtureRequest) -> Outage | None:
        """A crash and a start; None where the tests were given a server that is not ours."""
        if os.environ.get("STEM_TEST_POSTGRES_URL"):
            return None
        server: PostgresServer = request.getfixturevalue("own_server")

        @contextmanager
        def down() -> Iterator[None]:
            server.kill()
            try:
                yield
            finally:
                server.start()

        return down

    @pytest.fixture
    def url(self, request: pytest.FixtureRequest, module_url: str) -> str:
        if "outage" in request.fixturenames and request.getfixturevalue("outage"):
            server: PostgresServer = request.getfixturevalue("own_server")
            return f"{server.url}?connect_timeout=2"  # how long the first call in an outage may wait
        return module_url


class TestPostgresBroker(Given, BrokerContract):
    spec = POSTGRES_BROKER
    settle = SETTLE

    @pytest.fixture
    def connect(self, url: str) -> Callable[[], Awaitable[psycopg.AsyncConnection]]:
        """A caller's own connection, in whose transaction messages are published (law 19)."""
        return lambda: psycopg.AsyncConnection.connect(url.partition("?")[0])


class TestPostgresBackend(Given, BackendContract):
    spec = POSTGRES_BACKEND
    settle = SETTLE


class TestPostgresCommitter(Given, CommitterContract):
    broker = POSTGRES_BROKER
    backend = POSTGRES_BACKEND
    settle = SETTLE
