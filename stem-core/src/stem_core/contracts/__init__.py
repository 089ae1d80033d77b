"""The adapter contract as tests. An adapter's author subclasses these and runs pytest.

Installed by ``stem-core[contracts]``. How to: ``docs/writing-an-adapter.md``.
"""

from __future__ import annotations

from stem_core.contracts.backend import BackendContract
from stem_core.contracts.broker import BrokerContract
from stem_core.contracts.committer import CommitterContract
from stem_core.contracts.encoder import EncoderContract
from stem_core.contracts.laws import LAWS, LawBroken
from stem_core.contracts.outage import Outage
from stem_core.contracts.signer import SignerContract
from stem_core.contracts.time import Time

__all__ = [
    "LAWS",
    "BackendContract",
    "BrokerContract",
    "CommitterContract",
    "EncoderContract",
    "LawBroken",
    "Outage",
    "SignerContract",
    "Time",
]
