"""What is known of a task: its status, the updates that make it, and their order.

The order is law 20: (generation, attempt, rank) with queued < running < retrying < terminal.
:func:`merge` is that law as a function; every backend behaves as if it called it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, TypeVar

import msgspec

from stem_core.errors import TaskFailed, TaskRevoked

__all__ = [
    "PUBLISH_FAILED",
    "RANK_TERMINAL",
    "Progress",
    "StatusPage",
    "StatusQuery",
    "StatusUpdate",
    "TaskError",
    "TaskResult",
    "TaskState",
    "TaskStatus",
    "merge",
    "rank_of",
]

T = TypeVar("T")

#: The ``reason`` of a task whose publish was refused. It ranks with ``queued``: it is not terminal.
PUBLISH_FAILED = "publish-failed"
RANK_TERMINAL = 3


class TaskState(StrEnum):
    """Where a task is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether nothing more happens in this generation."""
        return self in (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED)


_RANKS = {
    TaskState.QUEUED: 0,
    TaskState.RUNNING: 1,
    TaskState.RETRYING: 2,
    TaskState.SUCCEEDED: RANK_TERMINAL,
    TaskState.FAILED: RANK_TERMINAL,
    TaskState.CANCELLED: RANK_TERMINAL,
}


def rank_of(state: TaskState, reason: str | None) -> int:
    """The rank of a state within its attempt: 0 queued (or publish-failed) to 3 terminal."""
    if reason == PUBLISH_FAILED:
        return 0
    return _RANKS[state]


class TaskError(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error as text: what another process can know of it."""

    type: str
    message: str
    traceback: str = ""


class Progress(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far a running task says it is: percent (0 to 100) and any plain data."""

    percent: float
    data: Any = None


class StatusUpdate(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One thing that became true of a task.

    What an update does not carry is kept: ``name``, ``queue``, ``progress``, ``enqueued_at``,
    ``started_at``; ``meta`` is merged, key by key. ``payload``, ``encoder``, ``error``, ``reason`` and
    ``finished_at`` belong to the state: an update that moves it replaces them, even with nothing.
    Meta values are plain data (None, bool, 64-bit int, finite float, str, list, dict with str keys).
    """

    id: str
    state: TaskState
    generation: int = 0
    attempt: int = 0
    name: str | None = None
    queue: str | None = None
    payload: bytes | None = None
    encoder: str | None = None
    error: TaskError | None = None
    reason: str | None = None
    meta: Mapping[str, Any] = msgspec.field(default_factory=dict)
    progress: Progress | None = None
    enqueued_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    ttl: float | None = None
    """Seconds the status is kept after this write; None keeps it for ever."""

    @property
    def rank(self) -> int:
        return rank_of(self.state, self.reason)


class TaskStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Everything recorded of a task. Timestamps are aware, in UTC, to the microsecond."""

    id: str
    state: TaskState
    generation: int = 0
    attempt: int = 0
    name: str | None = None
    queue: str | None = None
    payload: bytes | None = None
    encoder: str | None = None
    error: TaskError | None = None
    reason: str | None = None
    meta: Mapping[str, Any] = msgspec.field(default_factory=dict)
    progress: Progress | None = None
    enqueued_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def rank(self) -> int:
        return rank_of(self.state, self.reason)

    @property
    def terminal(self) -> bool:
        """Whether this generation is over. A refused publish is not: it may be sent again."""
        return rank_of(self.state, self.reason) == RANK_TERMINAL


class TaskResult(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """How one task ended: ``value`` when it succeeded, else ``error``."""

    id: str
    state: TaskState
    value: T | None = None
    error: TaskError | None = None

    @property
    def succeeded(self) -> bool:
        return self.state is TaskState.SUCCEEDED

    def checked(self) -> TaskResult[T]:
        """Itself, if it succeeded.

        :raises TaskFailed: it failed.
        :raises TaskRevoked: it was cancelled.
        """
        if self.succeeded:
            return self
        error = self.error or TaskError("", f"it is {self.state.value}")
        if self.state is TaskState.CANCELLED:
            raise TaskRevoked(f"Task {self.id} was cancelled: {error.message}")
        raise TaskFailed(self.id, error.type, error.message, error.traceback)


class StatusQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which statuses to list. An empty tuple means any; ``since <= enqueued_at < until``."""

    states: tuple[TaskState, ...] = ()
    names: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    limit: int = 100
    cursor: str | None = None


class StatusPage(msgspec.Struct, frozen=True):
    """Some of the statuses asked for; ``cursor`` asks for the next page, None when there is none."""

    items: tuple[TaskStatus, ...]
    cursor: str | None = None


def merge(current: TaskStatus | None, update: StatusUpdate) -> TaskStatus | None:
    """The status after ``update``, or None when law 20 refuses it."""
    if current is None:
        # Both keep these fields under the same names; spelt out, since every status of every task comes by here.
        return TaskStatus(
            id=update.id,
            state=update.state,
            generation=update.generation,
            attempt=update.attempt,
            name=update.name,
            queue=update.queue,
            payload=update.payload,
            encoder=update.encoder,
            error=update.error,
            reason=update.reason,
            meta=update.meta,
            progress=update.progress,
            enqueued_at=update.enqueued_at,
            started_at=update.started_at,
            finished_at=update.finished_at,
        )
    before = current.generation, current.attempt, rank_of(current.state, current.reason)
    after = update.generation, update.attempt, rank_of(update.state, update.reason)
    if after[0] < before[0] or (after[0] == before[0] and (before[2] == RANK_TERMINAL or after < before)):
        return None
    # What belongs to the state is replaced when the state moves, even with nothing.
    moved = after > before or update.state is not current.state
    return TaskStatus(
        id=current.id,
        state=update.state,
        generation=update.generation,
        attempt=update.attempt,
        name=current.name if update.name is None else update.name,
        queue=current.queue if update.queue is None else update.queue,
        payload=update.payload if moved or update.payload is not None else current.payload,
        encoder=update.encoder if moved or update.encoder is not None else current.encoder,
        error=update.error if moved or update.error is not None else current.error,
        reason=update.reason,
        meta={**current.meta, **update.meta} if update.meta else current.meta,
        progress=current.progress if update.progress is None else update.progress,
        enqueued_at=current.enqueued_at if update.enqueued_at is None else update.enqueued_at,
        started_at=current.started_at if update.started_at is None else update.started_at,
        finished_at=update.finished_at if moved or update.finished_at is not None else current.finished_at,
    )
