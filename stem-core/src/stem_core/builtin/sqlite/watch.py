"""Noticing what other processes commit, while somebody in this one waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from stem_core.builtin.sqlite.unit import Unit

__all__ = ["Watch"]

#: Seconds between looks: the first while there are changes or somebody has just begun to wait, the last when idle.
_SHORTEST: Final = 0.005
_LONGEST: Final = 0.1
_SLOWDOWN: Final = 1.5


class Watch:
    """Asks the writer's connection for ``PRAGMA data_version`` now and then, while ``is_awaited``.

    That costs no I/O, and changes with every commit of another connection: this process's own commits, which are
    all made on that one, are no news. Used by the writer's thread alone.
    """

    def __init__(self, is_awaited: Callable[[], bool], changed: Callable[[Unit], None]) -> None:
        self._is_awaited = is_awaited
        self._changed = changed
        self._seen: int | None = None
        self._interval = _SHORTEST
        self._next = 0.0

    def pause(self) -> float | None:
        """Seconds until the next look; None while nobody waits."""
        return max(0.0, self._next - time.monotonic()) if self._is_awaited() else None

    def hurry(self) -> None:
        """Somebody began to wait: look soon, and often at first."""
        self._interval = _SHORTEST
        self._next = min(self._next, time.monotonic() + _SHORTEST)

    def look(self, unit: Unit) -> None:
        version = unit.value("PRAGMA data_version")
        if version == self._seen:
            self._interval = min(self._interval * _SLOWDOWN, _LONGEST)
        else:
            self._seen = version
            self._interval = _SHORTEST
            self._changed(unit)
        self._next = time.monotonic() + self._interval

    def forget(self) -> None:
        """The connection is gone; what the next one says cannot be compared, so take it as a change."""
        self._seen = None
        self._next = time.monotonic() + _LONGEST
