"""Stores that only the worker's process has, as its children see them.

A child that opened ``memory://`` again would have a store of its own, and what it publishes there would be lost.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from stem_core.errors import StemError
from stem_core.wiring import Wiring

__all__ = ["stores_here"]


class Unshared:
    """Has the capabilities of an adapter, so that calls are planned and sealed for it; cannot be opened."""

    def __init__(self, adapter: Any) -> None:
        self.capabilities = adapter.capabilities
        self._name = type(adapter).__name__

    async def open(self) -> None:
        raise StemError(
            f"{self._name} is in one process alone, and this task runs in another (isolation='process'). Enqueue with "
            "ctx.enqueue or ctx.enqueue_sync, which the worker publishes; for all else use stores that processes "
            "share, such as sqlite:// or redis://"
        )

    async def close(self) -> None:
        """Nothing is open."""


def stores_here(wiring: Wiring) -> Wiring:
    """``wiring`` with stand-ins for the stores that another process cannot reach; itself where there are none."""
    changes: dict[str, Any] = {}
    for name in ("broker", "backend"):
        adapter: Any = getattr(wiring, name)
        if (
            adapter is not None
            and not adapter.capabilities.multi_process
            and not isinstance(adapter, Unshared)
        ):
            changes |= {name: Unshared(adapter), f"make_{name}": None}
    return replace(wiring, **changes) if changes else wiring
