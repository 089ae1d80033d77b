"""The SQLite adapters keep every law."""

from __future__ import annotations

from pathlib import Path

import pytest

from stem_core.builtin.plugin import SQLITE_BACKEND, SQLITE_BROKER
from stem_core.contracts import BackendContract, BrokerContract, CommitterContract


class TestSqliteBroker(BrokerContract):
    spec = SQLITE_BROKER
    clock = True

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/contract.db"


class TestSqliteBackend(BackendContract):
    spec = SQLITE_BACKEND
    clock = True

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/contract.db"


class TestSqliteCommitter(CommitterContract):
    broker, backend = SQLITE_BROKER, SQLITE_BACKEND
    clock = True

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/contract.db"
