"""The event loop that ``stem worker`` uses, for Stem and for the limit beside it alike."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from stem_core.operations.serving import loop_factory

__all__ = ["run"]

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """``asyncio.run`` on uvloop's loop, where that is installed."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(work)
