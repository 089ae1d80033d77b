"""What the end of a run becomes: a settlement, a status, derived messages, a group's outcome. Pure.

=================  ==================================  ==========================  ==================
end                status                              published                   settled
=================  ==================================  ==========================  ==================
Succeeded          succeeded, with the result          on_success, on_end          Ack
Failed (final)     failed, with error and reason       on_failure, on_end          DeadLetter(reason)
Failed (again)     retrying, with the error            nothing                     Retry(delay)
Cancelled          cancelled, with the reason          on_end                      Ack
GivenBack          nothing                             nothing                     Release(delay)
Unreadable         nothing: it may be a forgery        nothing                     DeadLetter(reason)
=================  ==================================  ==========================  ==================

A message acked before its run (``acks_late=False``) has no settlement left: :func:`acked` leaves it out.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import msgspec

from stem_core.envelope import Ack, Action, DeadLetter, Delivery, Envelope, Release, Retry, Settlement
from stem_core.names import RESULT_ENCODER_META, DeadReason
from stem_core.ports.backend import GroupOutcome, Outcome
from stem_core.publishing import meta_of
from stem_core.status import StatusUpdate, TaskError, TaskState, TaskStatus

__all__ = [
    "Cancelled",
    "Failed",
    "Finish",
    "Kind",
    "Retried",
    "Succeeded",
    "cancelled",
    "failed",
    "given_back",
    "recorded",
    "retried",
    "running",
    "succeeded",
    "unreadable",
]

#: Kept at least this long while running: a status must not expire before its end (seconds).
RUNNING_TTL: Final = 7 * 86_400.0


class Kind(StrEnum):
    """What a finish says; its value is the hook that tells of it."""

    SUCCEEDED = "stem_task_succeeded"
    FAILED = "stem_task_failed"
    RETRIED = "stem_task_retried"
    CANCELLED = "stem_task_revoked"
    GIVEN_BACK = "given back"
    UNREADABLE = "unreadable"
    RECORDED = "recorded before"


class Succeeded(msgspec.Struct, frozen=True, gc=False):
    """The handler returned; ``payload`` is its encoded result, None when it is not kept."""

    payload: bytes | None
    encoder: str | None
    seconds: float


class Failed(msgspec.Struct, frozen=True):
    """Nothing more is tried."""

    error: TaskError
    reason: DeadReason
    detail: str = ""
    seconds: float | None = None
    """In the handler; None when it was not called."""


class Retried(msgspec.Struct, frozen=True):
    """It failed and is tried again."""

    error: TaskError
    delay: float
    seconds: float | None


class Cancelled(msgspec.Struct, frozen=True):
    """Expired, revoked, or part of a cancelled graph."""

    reason: str


class Finish(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Everything to be stored at the end of one delivery, in one step where that can be."""

    delivery: Delivery
    envelope: Envelope | None = None
    settlement: Settlement | None = None
    update: StatusUpdate | None = None
    derived: tuple[bytes, ...] = ()
    outcome: GroupOutcome | None = None
    kind: Kind
    end: Succeeded | Failed | Retried | Cancelled | None = None

    def hook_arguments(self) -> dict[str, Any]:
        """What the hook of its kind is called with."""
        end, attempt = self.end, self.delivery.attempt
        if isinstance(end, Succeeded):
            return {"envelope": self.envelope, "attempt": attempt, "seconds": end.seconds}
        if isinstance(end, Failed):
            return {
                "envelope": self.envelope,
                "attempt": attempt,
                "error": end.error,
                "seconds": end.seconds,
            }
        if isinstance(end, Retried):
            return {
                "envelope": self.envelope,
                "attempt": attempt,
                "error": end.error,
                "delay": end.delay,
                "seconds": end.seconds,
            }
        assert isinstance(end, Cancelled)
        return {"envelope": self.envelope, "reason": end.reason}


def running(envelope: Envelope, delivery: Delivery, started_at: datetime) -> StatusUpdate:
    """The row that says a run has begun."""
    return StatusUpdate(
        id=envelope.id,
        state=TaskState.RUNNING,
        generation=delivery.generation,
        attempt=delivery.attempt,
        name=envelope.name,
        queue=envelope.queue,
        meta=meta_of(envelope),
        enqueued_at=envelope.enqueued_at,
        started_at=started_at,
        ttl=max(RUNNING_TTL, envelope.result_ttl),
    )


def succeeded(
    envelope: Envelope, delivery: Delivery, end: Succeeded, *, started_at: datetime | None, now: datetime
) -> Finish:
    """The handler returned."""
    state = TaskState.SUCCEEDED
    meta = meta_of(envelope)
    if end.encoder is not None:
        meta[RESULT_ENCODER_META] = end.encoder
    return Finish(
        delivery=delivery,
        envelope=envelope,
        settlement=Settlement(delivery.receipt, _ACK),
        update=StatusUpdate(
            id=envelope.id,
            state=state,
            generation=delivery.generation,
            attempt=delivery.attempt,
            name=envelope.name,
            queue=envelope.queue,
            payload=end.payload,
            encoder=end.encoder,
            meta=meta,
            enqueued_at=envelope.enqueued_at,
            started_at=started_at,
            finished_at=now,
            ttl=envelope.result_ttl,
        ),
        derived=_derived(envelope, state),
        outcome=_outcome(envelope, Outcome(state, end.payload, end.encoder)) if envelope.group else None,
        kind=Kind.SUCCEEDED,
        end=end,
    )


def failed(
    envelope: Envelope, delivery: Delivery, end: Failed, *, started_at: datetime | None, now: datetime
) -> Finish:
    """It failed for good."""
    return Finish(
        delivery=delivery,
        envelope=envelope,
        settlement=Settlement(delivery.receipt, DeadLetter(end.reason, end.detail or _line(end.error))),
        update=_ended(envelope, delivery, TaskState.FAILED, end.error, end.reason, started_at, now),
        derived=_derived(envelope, TaskState.FAILED),
        outcome=_outcome(envelope, Outcome(TaskState.FAILED, error=end.error)),
        kind=Kind.FAILED,
        end=end,
    )


def cancelled(
    envelope: Envelope, delivery: Delivery, end: Cancelled, *, started_at: datetime | None, now: datetime
) -> Finish:
    """It is not run, or not run to its end, because somebody or its expiry said so."""
    error = TaskError("stem_core.errors.TaskRevoked", f"the task was cancelled: {end.reason}")
    return Finish(
        delivery=delivery,
        envelope=envelope,
        settlement=Settlement(delivery.receipt, _ACK),
        update=_ended(envelope, delivery, TaskState.CANCELLED, error, end.reason, started_at, now),
        derived=_derived(envelope, TaskState.CANCELLED),
        outcome=_outcome(envelope, Outcome(TaskState.CANCELLED, error=error)),
        kind=Kind.CANCELLED,
        end=end,
    )


def retried(envelope: Envelope, delivery: Delivery, end: Retried, *, started_at: datetime | None) -> Finish:
    """It failed and is tried again after ``end.delay`` seconds."""
    return Finish(
        delivery=delivery,
        envelope=envelope,
        settlement=Settlement(delivery.receipt, Retry(end.delay)),
        update=StatusUpdate(
            id=envelope.id,
            state=TaskState.RETRYING,
            generation=delivery.generation,
            attempt=delivery.attempt,
            name=envelope.name,
            queue=envelope.queue,
            error=end.error,
            meta=meta_of(envelope),
            enqueued_at=envelope.enqueued_at,
            started_at=started_at,
            ttl=max(RUNNING_TTL, envelope.result_ttl) + end.delay,
        ),
        kind=Kind.RETRIED,
        end=end,
    )


def given_back(delivery: Delivery, delay: float = 0.0) -> Finish:
    """It was not run, or its run was cut short by a shutdown: the hand-out is refunded."""
    return Finish(
        delivery=delivery, settlement=Settlement(delivery.receipt, Release(delay)), kind=Kind.GIVEN_BACK
    )


def acked(finish: Finish) -> Finish:
    """The same end of a message that was acked before it started: nothing is left to settle."""
    return msgspec.structs.replace(finish, settlement=None)


def unreadable(delivery: Delivery, reason: DeadReason, detail: str) -> Finish:
    """Its bytes cannot be trusted: no status, group or lock of that id is touched."""
    return Finish(
        delivery=delivery,
        settlement=Settlement(delivery.receipt, DeadLetter(reason, detail)),
        kind=Kind.UNREADABLE,
    )


def recorded(envelope: Envelope, delivery: Delivery, status: TaskStatus) -> Finish:
    """Finish by what is recorded already, terminal in this generation: nothing is run, nothing overwritten.

    Derived messages and the group's outcome are said again, which adds nothing where they are known.
    """
    action: Action = _ACK
    if status.state is TaskState.FAILED:
        line = _line(status.error or TaskError("", ""))
        action = DeadLetter(status.reason or DeadReason.MAX_RETRIES, line)
    error = None if status.state is TaskState.SUCCEEDED else status.error
    return Finish(
        delivery=delivery,
        envelope=envelope,
        settlement=Settlement(delivery.receipt, action),
        derived=_derived(envelope, status.state),
        outcome=_outcome(envelope, Outcome(status.state, status.payload, status.encoder, error)),
        kind=Kind.RECORDED,
    )


def _ended(
    envelope: Envelope,
    delivery: Delivery,
    state: TaskState,
    error: TaskError,
    reason: str,
    started_at: datetime | None,
    now: datetime,
) -> StatusUpdate:
    return StatusUpdate(
        id=envelope.id,
        state=state,
        generation=delivery.generation,
        attempt=delivery.attempt,
        name=envelope.name,
        queue=envelope.queue,
        error=error,
        reason=str(reason),
        meta=meta_of(envelope),
        enqueued_at=envelope.enqueued_at,
        started_at=started_at,
        finished_at=now,
        ttl=envelope.result_ttl,
    )


_ACK: Final = Ack()


def _derived(envelope: Envelope, state: TaskState) -> tuple[bytes, ...]:
    if state is TaskState.SUCCEEDED:
        return envelope.on_success + envelope.on_end
    if state is TaskState.FAILED:
        return envelope.on_failure + envelope.on_end
    return envelope.on_end


def _outcome(envelope: Envelope, outcome: Outcome) -> GroupOutcome | None:
    return GroupOutcome(envelope.group, envelope.id, outcome) if envelope.group is not None else None


def _line(error: TaskError) -> str:
    return f"{error.type}: {error.message}"[:500]
