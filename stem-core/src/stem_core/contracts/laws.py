"""The laws by number, and how one is broken: with its number in front.

The text of each law is in ``docs/writing-an-adapter.md``; the titles here are for reports.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NoReturn

__all__ = ["LAWS", "LawBroken", "broken", "check", "expect"]

LAWS: Final[Mapping[int, str]] = {
    0: "what is declared is true, what is not is refused",
    1: "what was published is delivered until it is settled",
    2: "a once id is added once",
    3: "sealed bytes come back identical",
    4: "a lease excludes others until it ends, and ends on time",
    5: "fencing: a receipt settles at most once, a stale one never",
    6: "extend moves the deadline, and only that",
    7: "Retry and Release count as they should, and wait",
    8: "delayed messages are never early, and prompt after",
    9: "priority, publish order, rotation",
    10: "queues and namespaces are isolated, any name",
    11: "conservation: stats and purge agree with what happened",
    12: "dead letters keep everything; replay is exact",
    13: "concurrent use loses nothing and hands nothing out twice",
    14: "receive: limit, wake-up, cancellation, no tight poll",
    15: "a lost connection is an error, then works again",
    16: "close is idempotent; use after close is an error",
    17: "withdraw removes what waits, never what is leased",
    18: "a broadcast reaches every current subscriber",
    19: "transactional publish, durability and routes hold as declared",
    20: "the order of a status",
    21: "what was recorded is read back equal",
    22: "wait returns when a terminal state is recorded",
    23: "a status is kept for its ttl, and no longer",
    24: "groups: each member once, one completes it",
    25: "state is compare-and-set",
    26: "limits hold in every window",
    27: "list returns exactly what matches, once",
    30: "a step is all or nothing",
    31: "a refused step leaves the others untouched",
    32: "the other laws hold whichever way a step is done",
    40: "decode(encode(x)) is x",
    41: "bytes not its own raise DecodeError, soon",
    42: "encoders compose in order, and back",
    50: "a signature verifies; any changed bit does not",
    51: "keys rotate",
    52: "a key serves one algorithm",
}


class LawBroken(AssertionError):
    """An adapter broke law ``number``. The message says what happened and what the law wants."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(f"law {number}: {text}")
        self.number = number


def broken(number: int, text: str) -> NoReturn:
    """:raises LawBroken: always."""
    raise LawBroken(number, text)


def check(kept: bool, number: int, text: str) -> None:
    """:raises LawBroken: ``kept`` is false."""
    if not kept:
        raise LawBroken(number, text)


def expect(found: object, wanted: object, number: int, what: str) -> None:
    """``what`` must be ``wanted``; the message says both.

    :raises LawBroken: it is not.
    """
    if found != wanted:
        raise LawBroken(number, f"{what}: expected {wanted!r}, got {found!r}")
