"""Broadcasts, as functions of a transaction: law 18. Subscribers follow the table's growing number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from stem_core.builtin.sqlite.unit import Unit, listed

__all__ = ["latest", "send", "since"]

#: Seconds a broadcast is kept. Subscribers look several times a second.
_KEPT: Final = 600.0
_PRUNE: Final = 10


def send(unit: Unit, ns: int, channel: str, data: bytes) -> None:
    unit.execute(
        "INSERT INTO broadcasts (ns, channel, data, at) VALUES (?, ?, ?, ?)", (ns, channel, data, unit.now)
    )
    unit.execute(
        "DELETE FROM broadcasts WHERE n IN (SELECT n FROM broadcasts ORDER BY n LIMIT ?) AND at <= ?",
        (_PRUNE, unit.now - _KEPT),
    )
    unit.broadcast.add(ns)


def latest(unit: Unit) -> int:
    """The number of the last broadcast there ever was."""
    return int(unit.value("SELECT seq FROM sqlite_sequence WHERE name = 'broadcasts'") or 0)


def since(unit: Unit, ns: int, channels: Sequence[str], after: int) -> list[tuple[int, str, bytes]]:
    return unit.rows(
        "SELECT n, channel, data FROM broadcasts WHERE n > ? AND ns = ? "
        "AND channel IN (SELECT value FROM json_each(?)) ORDER BY n",
        (after, ns, listed(channels)),
    )
