"""The conformance suite's backend laws on PostgreSQL."""

from __future__ import annotations

import pytest

from stem_core.contracts.backend import BackendContract
from stem_postgres.plugin import POSTGRES_BACKEND


class TestPostgresBackend(BackendContract):
    spec = POSTGRES_BACKEND
    settle = 0.02

    @pytest.fixture
    def url(self, module_url: str) -> str:
        return module_url
