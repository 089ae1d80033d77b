"""Batches for the scripts: small enough that a script never holds the server up for long."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from stem_core.envelope import Ack, DeadLetter, Message, Receipt, Release, Retry, Settlement
from stem_core.errors import PayloadTooLarge, UnsupportedCapability
from stem_core.ports.capabilities import BrokerCapabilities
from stem_core.ports.committer import Step
from stem_redis.keys import Keys
from stem_redis.wire import (
    Row,
    message_row,
    milliseconds,
    outcome_row,
    pack_rows,
    receipt_parts,
    status_row,
)

__all__ = [
    "MOST_BYTES",
    "MOST_STEPS",
    "Call",
    "Roots",
    "check_message",
    "commit_calls",
    "publish_calls",
    "receipt_row",
    "settlement_row",
]

#: One script call: its keys and its arguments.
Call = tuple[Sequence[str], Sequence[bytes | str | int]]

MOST_MESSAGES: Final = 500
MOST_STEPS: Final = 200
MOST_BYTES: Final = 512 * 1024


class Roots:
    """The queues of one call: each gets the index of its root among the call's keys."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._indexes: dict[str, int] = {}
        self.roots: list[str] = []

    def index(self, queue: str) -> int:
        index = self._indexes.get(queue)
        if index is None:
            self.roots.append(self._keys.root(queue))
            index = self._indexes[queue] = len(self.roots)
        return index


def check_message(message: Message, capabilities: BrokerCapabilities) -> None:
    """Whether the broker can take it.

    :raises PayloadTooLarge: its sealed bytes are over the limit.
    :raises ValueError: its priority is no level.
    :raises UnsupportedCapability: it has a route.
    """
    limit = capabilities.max_size
    if limit is not None and len(message.sealed) > limit:
        raise PayloadTooLarge(
            f"message {message.id} has {len(message.sealed):,} sealed bytes; this broker takes {limit:,}: "
            "store the payload elsewhere and send where it is"
        )
    if not 0 <= message.priority < capabilities.priority_levels:
        raise ValueError(
            f"message {message.id} has priority={message.priority}; this broker has levels 0 to "
            f"{capabilities.priority_levels - 1}"
        )
    if message.route:
        raise UnsupportedCapability(
            f"message {message.id} has route={dict(message.route)}; stem-redis has no 'routing': name a queue instead"
        )


def publish_calls(keys: Keys, messages: Sequence[Message]) -> Iterator[Call]:
    """The calls of publish.lua that publish ``messages``, in order."""
    at = 0
    while at < len(messages):
        roots, rows, parts, size, count = Roots(keys), list[Any](), list[bytes](), 0, 0
        while at < len(messages) and count < MOST_MESSAGES and size < MOST_BYTES:
            message = messages[at]
            rows += message_row(roots.index(message.queue), message, parts)
            size += len(message.sealed)
            count += 1
            at += 1
        yield roots.roots, (pack_rows(rows), b"".join(parts))


def receipt_row(roots: Roots, receipt: Receipt) -> Row | None:
    """The start of every row about a receipt; None for what is none of ours."""
    parts = receipt_parts(receipt)
    if parts is None:
        return None
    level, entry, count, id, once, queue = parts
    return [roots.index(queue), level, entry, count, id, once]


def settlement_row(roots: Roots, settlement: Settlement) -> Row | None:
    """The row of a settlement (see ``settle`` in leases.lua); None for what is no receipt of ours."""
    row = receipt_row(roots, settlement.receipt)
    if row is None:
        return None
    match settlement.action:
        case Ack():
            row += ("a", 0, 0)
        case Retry(delay):
            row += ("r", milliseconds(delay), 0)
        case Release(delay):
            row += ("l", milliseconds(delay), 0)
        case DeadLetter(reason, detail):
            row += ("d", reason, detail)
    return row


def commit_calls(keys: Keys, once_ttl: int, steps: Sequence[Step]) -> Iterator[Call]:
    """The calls of commit.lua that do ``steps``, in order. Each settlement's receipt must be readable."""
    at = 0
    while at < len(steps):
        roots, rows, parts, size, count = Roots(keys), list[Any](), list[bytes](), 0, 0
        while at < len(steps) and count < MOST_STEPS and size < MOST_BYTES:
            size += _add_step(roots, rows, parts, steps[at])
            count += 1
            at += 1
        yield roots.roots, (keys.prefix, once_ttl, pack_rows(rows), b"".join(parts))


def _add_step(roots: Roots, rows: Row, parts: list[bytes], step: Step) -> int:
    """Add the row of a step (see commit.lua); answers the size of its parts."""
    start, first = len(rows), len(parts)
    settlement = settlement_row(roots, step.settlement) if step.settlement else None
    if settlement is None:
        rows += (0, 0, 0)
    else:
        rows += (0, 0, 1)
        rows += settlement
    rows.append(len(step.updates))
    for update in step.updates:
        rows += status_row(update, parts)
    rows.append(len(step.publishes))
    for message in step.publishes:
        rows += message_row(roots.index(message.queue), message, parts)
    rows.append(len(step.outcomes))
    for added in step.outcomes:
        rows += outcome_row(added, parts)
    size = sum(map(len, parts[first:]))
    rows[start] = len(rows) - start - 1
    rows[start + 1] = size
    return size
