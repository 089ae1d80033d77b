"""What an envelope becomes for a broker and a backend: pure functions of it and their capabilities.

Producers and workers publish through these alone, so a derived message published by a worker
is what the producer would have published.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from math import inf
from typing import Any, Final

from stem_core.envelope import Envelope, Message
from stem_core.ports.backend import Callback
from stem_core.ports.capabilities import BrokerCapabilities
from stem_core.status import StatusUpdate, TaskState

__all__ = [
    "GROUP_META",
    "IGNORED_META",
    "PARENT_META",
    "REPLIES_META",
    "ROOT_META",
    "callback_of",
    "level_of",
    "longest_delay",
    "message_of",
    "meta_of",
    "queued_of",
]

#: The group a task's outcome goes to, for whoever ends the task without its message.
GROUP_META: Final = "stem.group"
#: A payload may be stored for what comes after the task; its handles answer None all the same.
IGNORED_META: Final = "stem.ignoreResult"
PARENT_META: Final = "stem.parentTaskId"
#: Something is published at the task's end, whatever the end: only who has its message can do that.
REPLIES_META: Final = "stem.replies"
ROOT_META: Final = "stem.rootTaskId"
_PRIORITIES: Final = 10
#: Two centuries: every store has an instant so far away. ``eta=datetime.max`` is further.
_LONGEST_TTL: Final = 200 * 366 * 86_400.0
_NO_ROUTE: Final[Mapping[str, str]] = {}


def level_of(priority: int, levels: int) -> int:
    """A priority of 0 to 9 on a broker with ``levels`` levels: 0 lowest, the range divided evenly."""
    return priority * levels // _PRIORITIES


def message_of(envelope: Envelope, sealed: bytes, capabilities: BrokerCapabilities, *, once: bool) -> Message:
    """The message that carries ``sealed``, with what this broker honours and nothing else."""
    return Message(
        id=envelope.id,
        queue=envelope.queue,
        sealed=sealed,
        priority=level_of(envelope.priority, capabilities.priority_levels) if envelope.priority else 0,
        not_before=_not_before(envelope, capabilities) if envelope.not_before is not None else None,
        delay=min(envelope.delay, longest_delay(capabilities)) if envelope.delay else 0.0,
        once=once,
        route=envelope.route if capabilities.routing else _NO_ROUTE,
    )


def _not_before(envelope: Envelope, capabilities: BrokerCapabilities) -> datetime | None:
    """As late as the broker can hold it back, never later than asked; a worker waits for the rest."""
    due, longest = envelope.not_before, capabilities.max_delay
    if due is None or not capabilities.delay:
        return None
    return due if longest is None else min(due, envelope.enqueued_at + timedelta(seconds=longest))


def longest_delay(capabilities: BrokerCapabilities) -> float:
    """The most seconds the broker can hold a message back for."""
    if not capabilities.delay:
        return 0.0
    return inf if capabilities.max_delay is None else capabilities.max_delay


def queued_of(envelope: Envelope, *, generation: int = 0) -> StatusUpdate:
    """The ``queued`` row of an envelope, written before its publish. Insert-if-absent by law 20.

    It lives for the result's ttl past the moment the task may first run, as far as stores can tell the time.
    """
    return StatusUpdate(
        id=envelope.id,
        state=TaskState.QUEUED,
        generation=generation,
        name=envelope.name,
        queue=envelope.queue,
        meta=meta_of(envelope),
        enqueued_at=envelope.enqueued_at,
        ttl=min(envelope.result_ttl + waiting_time(envelope, envelope.enqueued_at), _LONGEST_TTL),
    )


def meta_of(envelope: Envelope) -> dict[str, Any]:
    """What every status of the envelope's task carries as meta: the caller's, and where the task belongs."""
    meta = dict(envelope.meta)
    if envelope.parent is not None:
        meta[PARENT_META] = envelope.parent
        meta[ROOT_META] = envelope.root or envelope.parent
    if envelope.group is not None:
        meta[GROUP_META] = envelope.group
    if envelope.on_end:
        meta[REPLIES_META] = True
    if envelope.ignore_result:
        meta[IGNORED_META] = True
    return meta


def waiting_time(envelope: Envelope, now: datetime) -> float:
    """Seconds from ``now`` until the envelope may first run."""
    if envelope.not_before is None:
        return envelope.delay
    return max(envelope.delay, (envelope.not_before - now) / timedelta(seconds=1), 0.0)


def callback_of(envelope: Envelope, sealed: bytes, capabilities: BrokerCapabilities) -> Callback:
    """A derived message as a group keeps it: published once, with its ``queued`` row."""
    return Callback(message_of(envelope, sealed, capabilities, once=True), queued_of(envelope))
