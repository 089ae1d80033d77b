"""The shelf broker keeps the laws of the adapter contract."""

import pytest
from stem_shelf.plugin import SHELF

from stem_core.contracts import BrokerContract


class TestShelf(BrokerContract):
    spec = SHELF
    clock = True  # it lives by AdapterOptions.clock, so no test has to wait

    @pytest.fixture
    def url(self, tmp_path):
        return f"shelf://{tmp_path}"
