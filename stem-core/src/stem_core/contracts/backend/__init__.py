"""The backend's laws: :class:`BackendContract` and what it is made of."""

from __future__ import annotations

from stem_core.contracts.backend.contract import BackendContract

__all__ = ["BackendContract"]
