"""The SQLite adapters keep every law."""

from __future__ import annotations

from pathlib import Path

import pytest

from stem_core.builtin.plugin import SQLITE_BROKER
from stem_core.contracts import BrokerContract


class TestSqliteBroker(BrokerContract):
    spec = SQLITE_BROKER
    clock = True

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/contract.db"
