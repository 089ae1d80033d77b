"""The memory adapters keep every law."""

from __future__ import annotations

import pytest

from stem_core.builtin.plugin import MEMORY_BACKEND, MEMORY_BROKER
from stem_core.contracts import BackendContract, BrokerContract, CommitterContract


class TestMemoryBroker(BrokerContract):
    spec = MEMORY_BROKER
    clock = True

    @pytest.fixture
    def url(self, unique_name: str) -> str:
        return f"memory://{unique_name}"


class TestMemoryBackend(BackendContract):
    spec = MEMORY_BACKEND
    clock = True

    @pytest.fixture
    def url(self, unique_name: str) -> str:
        return f"memory://{unique_name}"


class TestMemoryCommitter(CommitterContract):
    broker, backend = MEMORY_BROKER, MEMORY_BACKEND
    clock = True

    @pytest.fixture
    def url(self, unique_name: str) -> str:
        return f"memory://{unique_name}"
