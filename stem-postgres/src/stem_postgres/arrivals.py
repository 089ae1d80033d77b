"""Who in this process waits for which queue."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Sequence

__all__ = ["Arrivals"]


class Arrivals:
    """Events, one per waiting receive, found by queue."""

    def __init__(self) -> None:
        self._bells: dict[str, set[asyncio.Event]] = {}

    @contextlib.contextmanager
    def watch(self, queues: Sequence[str]) -> Iterator[asyncio.Event]:
        """An event that is set when something arrives in one of ``queues``."""
        bell = asyncio.Event()
        for queue in queues:
            self._bells.setdefault(queue, set()).add(bell)
        try:
            yield bell
        finally:
            for queue in set(queues):
                bells = self._bells[queue]
                bells.discard(bell)
                if not bells:
                    del self._bells[queue]

    def ring(self, queues: Iterable[str]) -> None:
        """Wake who waits for these."""
        for queue in queues:
            for bell in self._bells.get(queue, ()):
                bell.set()

    def all(self) -> None:
        """Wake everyone."""
        self.ring(list(self._bells))
