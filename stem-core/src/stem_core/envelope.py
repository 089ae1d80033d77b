"""The immutable values that travel: the envelope, and the message a broker moves.

An :class:`Envelope` is what the producer said, sealed once and never changed. A :class:`Message` is
its sealed bytes with the little a broker must know. A :class:`Delivery` is one lease on a message;
its counts belong to the broker, outside the signature.

The hot ones are no business of the garbage collector (``gc=False``): frozen, and made of values older than
they are, they can be part of no cycle.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

import msgspec

from stem_core.options import TaskRetryPolicy

__all__ = [
    "Ack",
    "Action",
    "DeadLetter",
    "DeadMessage",
    "DeadPage",
    "Delivery",
    "Envelope",
    "Input",
    "Limits",
    "Message",
    "Receipt",
    "Release",
    "Retry",
    "Settlement",
    "new_id",
    "new_ids",
]

#: A fencing token, made by the broker at hand-out; opaque to everybody else.
Receipt = str


class Input(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a derived message gets its first argument from, when it runs.

    ``one``: the result of task ``task``, or of the single member of ``group``. ``all``: the results of
    ``group`` in the body's order. ``error``: ``{id, type, message}`` of task ``task``. ``reply``:
    ``{id, state, result}`` of task ``task``. ``none``: nothing is put first, but a failed member of
    ``group`` still fails the task (immutable signatures); ``task`` says only what it runs after.
    """

    kind: Literal["one", "all", "error", "reply", "none"]
    task: str | None = None
    group: str | None = None


class Limits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Shared limits a worker applies before it runs the task; see ``TaskOptions``."""

    rate_limit: str | None = None
    group_rate_limit: str | None = None
    group_rate_key: str | None = None
    rate_limiter_failure_mode: Literal["open", "closed"] = "open"
    max_concurrency: int | None = None
    concurrency_key: str | None = None


class Envelope(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What the producer said. Durations in seconds, instants aware and in UTC.

    ``args`` are the bytes that encoder chain ``encoder`` made of ``[positional list, keyword map]``.
    ``delay`` counts from the publish of a derived message (its sealed countdown). ``on_success``,
    ``on_failure`` and ``on_end`` hold the sealed bytes of derived messages, published once by the worker.
    ``group`` is the group this task's outcome goes to; ``unique`` the lock its end releases.
    """

    id: str
    name: str
    queue: str
    args: bytes
    encoder: str
    enqueued_at: datetime
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    meta: Mapping[str, Any] = msgspec.field(default_factory=dict)
    not_before: datetime | None = None
    delay: float = 0.0
    expires: datetime | None = None
    priority: int = 0
    max_retries: int = 0
    retry_policy: TaskRetryPolicy | None = None
    soft_time_limit: float | None = None
    time_limit: float | None = None
    visibility_timeout: float | None = None
    acks_late: bool = True
    result_encoder: str | None = None
    result_ttl: float = 86_400.0
    ignore_result: bool = False
    shadow: str | None = None
    route: Mapping[str, str] = msgspec.field(default_factory=dict)
    parent: str | None = None
    root: str | None = None
    limits: Limits | None = None
    unique: str | None = None
    group: str | None = None
    input: Input | None = None
    on_success: tuple[bytes, ...] = ()
    on_failure: tuple[bytes, ...] = ()
    on_end: tuple[bytes, ...] = ()


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What a broker stores: sealed bytes it never parses, and how to order and hold them.

    ``priority`` is a level of the broker's, 0 lowest. Due at ``not_before``, or ``delay`` seconds after
    the publish by the store's clock, whichever is later; both are empty for a broker without
    ``delay``. ``once`` makes the publish idempotent by (namespace, queue, id).
    """

    id: str
    queue: str
    sealed: bytes
    priority: int = 0
    not_before: datetime | None = None
    delay: float = 0.0
    once: bool = False
    route: Mapping[str, str] = msgspec.field(default_factory=dict)


class Delivery(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One lease on one message.

    ``generation`` counts replays; ``attempt`` the executions of this generation that ended in ``Retry``;
    ``deliveries`` the hand-outs of this attempt, this one included (so 1 on the first).
    """

    message: Message
    receipt: Receipt
    lease_until: datetime
    generation: int = 0
    attempt: int = 0
    deliveries: int = 1


class Ack(msgspec.Struct, frozen=True, tag=True):
    """Forget the message: it is done."""


class Retry(msgspec.Struct, frozen=True, tag=True):
    """Deliver it again after ``delay`` seconds as a new attempt: attempt + 1, deliveries back to 0."""

    delay: float = 0.0


class Release(msgspec.Struct, frozen=True, tag=True):
    """Give it back unstarted, for ``delay`` seconds: attempt unchanged, this hand-out refunded."""

    delay: float = 0.0


class DeadLetter(msgspec.Struct, frozen=True, tag=True):
    """Put it aside with a reason (a short code) and a detail (text for people)."""

    reason: str
    detail: str = ""


Action = Ack | Retry | Release | DeadLetter


class Settlement(msgspec.Struct, frozen=True, gc=False):
    """What becomes of a delivery. A receipt settles at most once."""

    receipt: Receipt
    action: Action


class DeadMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter: the message as it was published, and why it was put aside."""

    message: Message
    reason: str
    detail: str
    dead_at: datetime
    generation: int
    attempt: int


class DeadPage(msgspec.Struct, frozen=True):
    """Some dead letters, oldest first; ``cursor`` asks for the next page, None when there is none."""

    items: tuple[DeadMessage, ...]
    cursor: str | None = None


def new_id() -> str:
    """A new task id: UUIDv7 as text (RFC 9562), 48 bits of milliseconds and 74 random ones."""
    hex = ((time.time_ns() // 1_000_000).to_bytes(6) + os.urandom(10)).hex()
    return f"{hex[:8]}-{hex[8:12]}-7{hex[13:16]}-{_VARIANT[hex[16]]}{hex[17:20]}-{hex[20:]}"


def new_ids(count: int) -> list[str]:
    """``count`` new task ids of one millisecond."""
    time_part = f"{time.time_ns() // 1_000_000:012x}"
    start = f"{time_part[:8]}-{time_part[8:]}-7"
    random = os.urandom(10 * count).hex()
    return [
        # 12 random bits after the version, two of the variant and two random ones, 60 random bits.
        f"{start}{random[i : i + 3]}-{_VARIANT[random[i + 3]]}{random[i + 4 : i + 7]}-{random[i + 7 : i + 19]}"
        for i in range(0, 20 * count, 20)
    ]


_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
