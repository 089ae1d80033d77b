"""The adapter contract as tests. An adapter's author subclasses these and runs pytest.

Installed by ``stem-core[contracts]``. How to: ``docs/writing-an-adapter.md``.
"""

from __future__ import annotations

from stem_core.contracts.backend import BackendContract
from stem_core.contracts.broker import BrokerContract
from stem_core.contracts.laws import LAWS, LawBroken

__all__ = ["LAWS", "BackendContract", "BrokerContract", "LawBroken"]
