"""The committer's laws: :class:`CommitterContract` and what it is made of."""

from __future__ import annotations

from stem_core.contracts.committer.contract import CommitterContract

__all__ = ["CommitterContract"]
