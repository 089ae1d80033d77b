"""The conformance suite on PostgreSQL: every law of broker, backend and committer."""

from __future__ import annotations

import pytest

from stem_core.contracts import BackendContract, BrokerContract, CommitterContract
from stem_postgres.plugin import POSTGRES_BACKEND, POSTGRES_BROKER

SETTLE = 0.02  # what is due can be claimed at once; the suite need not wait for it


class TestPostgresBroker(BrokerContract):
    spec = POSTGRES_BROKER
    settle = SETTLE

    @pytest.fixture
    def url(self, module_url: str) -> str:
        return module_url


class TestPostgresBackend(BackendContract):
    spec = POSTGRES_BACKEND
    settle = SETTLE

    @pytest.fixture
    def url(self, module_url: str) -> str:
        return module_url


class TestPostgresCommitter(CommitterContract):
    broker = POSTGRES_BROKER
    backend = POSTGRES_BACKEND
    settle = SETTLE

    @pytest.fixture
    def url(self, module_url: str) -> str:
        return module_url
