"""The broker's laws: :class:`BrokerContract` and what it is made of."""

from __future__ import annotations

from stem_core.contracts.broker.contract import BrokerContract

__all__ = ["BrokerContract"]
