"""The conformance suite on PostgreSQL."""

from __future__ import annotations

import pytest

from stem_core.contracts import BrokerContract
from stem_postgres.plugin import POSTGRES_BROKER


class TestPostgresBroker(BrokerContract):
    spec = POSTGRES_BROKER
    settle = 0.02  # what is due can be claimed at once; the suite need not wait for it

    @pytest.fixture
    def url(self, module_url: str) -> str:
        return module_url
