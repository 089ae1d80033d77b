"""One delivery on its way through the worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING

from stem_core.envelope import Delivery, Envelope

if TYPE_CHECKING:
    from stem_core.context import TaskContext
    from stem_core.worker.handlers import Handler

__all__ = ["Run", "Stop"]


class Stop(Enum):
    """Why a run is being cut short."""

    LEASE_LOST = "its lease was lost"
    HARD_LIMIT = "its hard time limit ended"
    REVOKED = "it was revoked"
    SHUTDOWN = "the worker stops"


class Run:
    """What changes while a delivery is worked on. Belongs to the worker's loop."""

    __slots__ = (
        "begun",
        "context",
        "deadline",
        "delivery",
        "due",
        "ended",
        "envelope",
        "execution",
        "finishing",
        "handler",
        "interrupt",
        "lease",
        "make_context",
        "not_before",
        "receipt",
        "started",
        "started_at",
        "stop",
    )

    def __init__(self, delivery: Delivery, envelope: Envelope, deadline: float, lease: float) -> None:
        self.delivery = delivery
        self.envelope = envelope
        self.receipt = delivery.receipt
        #: Local monotonic time at which the lease ends, counted from before it was asked for.
        self.deadline = deadline
        #: Seconds asked for at each renewal.
        self.lease = lease
        self.handler: Handler | None = None
        self.context: TaskContext | None = None
        #: Makes ``context`` when somebody asks for it; set before the handler is called.
        self.make_context: Callable[[Run], TaskContext] | None = None
        self.execution: asyncio.Task[None] | None = None
        #: When a derived message may start that the broker hands out too early, in seconds since the epoch; 0: any time.
        self.due = 0.0
        #: Seconds until it may start; waited for in this worker.
        self.not_before = 0.0
        #: ``time.monotonic()`` when its handler was called; None before and without one.
        self.started: float | None = None
        self.started_at: datetime | None = None
        #: Set once, when it is cut short; read by the story when the handler has ended.
        self.stop: Stop | None = None
        #: Its asyncio task has made its first step; before that a cancellation would leave no trace.
        self.begun = False
        #: Its handler is over, one way or another.
        self.ended = False
        #: Its end is being stored: from here on only the store's answer counts.
        self.finishing = False
        #: How to cut a handler short that does not run on the loop.
        self.interrupt: Callable[[Stop], None] | None = None

    def task_context(self) -> TaskContext:
        """What the handler sees of this run, made at the first call."""
        if self.context is None:
            assert self.make_context is not None
            self.context = self.make_context(self)
        return self.context

    def over(self) -> None:
        """Its handler is over. What refers back to the run is let go: memory need not wait for the collector."""
        self.ended = True
        self.execution = None
        self.context = None

    def stopped(self) -> Stop | None:
        """``stop`` as it is now, whatever it was a few awaits ago."""
        return self.stop

    def cut(self, stop: Stop) -> None:
        """Cut it short: the handler is cancelled (or its child killed); the story decides what follows."""
        if self.stop is not None:
            return
        self.stop = stop
        if self.interrupt is not None:
            self.interrupt(stop)
        elif self.execution is not None and self.begun:
            self.execution.cancel()
