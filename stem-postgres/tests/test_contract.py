"""The conformance suite on PostgreSQL: every law of broker, backend and committer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from stem_core.contracts import BackendContract, BrokerContract, CommitterContract
from stem_core.contracts.outage import Outage
from stem_postgres.plugin import POSTGRES_BACKEND, POSTGRES_BROKER
from tests.servers import PostgresServer

SETTLE = 0.02  # what is due can be claimed at once; the suite need not wait for it


@pytest.fixture(scope="class")
def own_server() -> Iterator[PostgresServer | None]:
    """A server that may go down; None where the tests were given one that is not ours."""
    if os.environ.get("STEM_TEST_POSTGRES_URL"):
        yield None
        return
    with PostgresServer() as server:
        yield server


class Given:
    """Pytest looks for a fixture in the class first, where the contract has its own."""

    @pytest.fixture
    def url(self, own_server: PostgresServer | None, module_url: str) -> str:
        return own_server.url if own_server else module_url

    @pytest.fixture
    def outage(self, own_server: PostgresServer | None) -> Outage | None:
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


class TestPostgresBroker(Given, BrokerContract):
    spec = POSTGRES_BROKER
    settle = SETTLE


class TestPostgresBackend(Given, BackendContract):
    spec = POSTGRES_BACKEND
    settle = SETTLE


class TestPostgresCommitter(Given, CommitterContract):
    broker = POSTGRES_BROKER
    backend = POSTGRES_BACKEND
    settle = SETTLE
