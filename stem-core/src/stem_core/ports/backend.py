"""What a result backend must be able to do. Laws 20 to 27 of the adapter contract say it in full."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from stem_core.envelope import Message
from stem_core.ports.capabilities import BackendCapabilities
from stem_core.status import StatusPage, StatusQuery, StatusUpdate, TaskError, TaskState, TaskStatus

__all__ = [
    "Backend",
    "Callback",
    "GroupAnswer",
    "GroupOutcome",
    "GroupRecord",
    "LimitAnswer",
    "Outcome",
    "StateEntry",
    "StateRead",
]


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """How one member of a group ended: succeeded with a payload, or failed or cancelled with an error."""

    state: TaskState
    payload: bytes | None = None
    encoder: str | None = None
    error: TaskError | None = None


class GroupOutcome(msgspec.Struct, frozen=True):
    """An :class:`Outcome` with the group and the member it belongs to."""

    group: str
    member: str
    outcome: Outcome


class Callback(msgspec.Struct, frozen=True):
    """One message published when a group completes, and the ``queued`` row written with it."""

    message: Message
    queued: StatusUpdate


class GroupAnswer(msgspec.Struct, frozen=True):
    """``left``: members without an outcome, a hint. ``complete``: this call's member completed the group.

    ``complete`` is a function of (group, member): a repeat gets the same answer, any other member False.
    """

    left: int
    complete: bool


class GroupRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Everything kept of a group.

    ``completed_by`` is the member that completed it, or ``""`` when ``group_close`` did or it was created
    empty; None while open. ``closed`` is the reason given to ``group_close``.
    """

    id: str
    members: tuple[str, ...]
    callback: tuple[Callback, ...] = ()
    outcomes: Mapping[str, Outcome] = msgspec.field(default_factory=dict)
    completed_by: str | None = None
    closed: str | None = None
    deadline: datetime | None = None

    @property
    def complete(self) -> bool:
        return self.completed_by is not None

    @property
    def missing(self) -> tuple[str, ...]:
        """The members without an outcome, in the body's order."""
        return tuple(member for member in self.members if member not in self.outcomes)


class StateRead(msgspec.Struct, frozen=True):
    """A shared value: None with version 0 when absent. ``now`` is the store's clock."""

    value: bytes | None
    version: int
    now: datetime


class StateEntry(msgspec.Struct, frozen=True):
    """One key found by ``state_scan``."""

    key: str
    value: bytes
    version: int


class LimitAnswer(msgspec.Struct, frozen=True):
    """Whether permits were granted; if not, the seconds after which asking again makes sense."""

    granted: bool
    retry_after: float = 0.0


class Backend(Protocol):
    """Keeps what became of tasks. Used from the event loop that opened it.

    A method that belongs to an undeclared capability raises :exc:`UnsupportedCapability`; a lost
    connection raises a ``StemError`` and the adapter works again once the store is back.
    """

    capabilities: BackendCapabilities

    async def open(self) -> None:
        """Connect and prepare the store.

        :raises AdapterError: unreachable within ``AdapterOptions.connect_timeout``, or refused.
        """
        ...

    async def close(self) -> None:
        """Release everything; calling it again is fine."""
        ...

    async def record(self, updates: Sequence[StatusUpdate]) -> Sequence[bool]:
        """Apply each update in order, as ``stem_core.status.merge`` does; False where it was refused (law 20)."""
        ...

    async def fetch(self, ids: Sequence[str]) -> Sequence[TaskStatus | None]:
        """The status of each id, None where nothing is recorded (or it expired)."""
        ...

    async def wait(self, id: str, timeout: float) -> TaskStatus | None:
        """The terminal status of ``id`` as soon as any process records it; None after ``timeout`` seconds."""
        ...

    # listing

    async def list(self, query: StatusQuery) -> StatusPage:
        """What matches ``query``, each once over all pages (law 27)."""
        ...

    # groups

    async def group_create(
        self,
        id: str,
        members: Sequence[str],
        callback: Sequence[Callback],
        deadline: datetime | None,
        ttl: float,
    ) -> bool:
        """Open a group of member task ids, in the body's order; False when ``id`` exists (nothing changes).

        Without members it is complete at once (``completed_by=""``); the caller publishes the callback.
        ``ttl`` in seconds; every ``group_add`` renews it.
        """
        ...

    async def group_add(self, id: str, member: str, outcome: Outcome) -> GroupAnswer:
        """Count ``outcome`` of ``member`` once; a second one changes nothing (law 24).

        A group with a callback is complete at its first member that did not succeed, else at its last; one
        without a callback at its last. An unknown group or member answers ``GroupAnswer(0, False)``.
        """
        ...

    async def group_close(self, id: str, reason: str) -> GroupAnswer:
        """Complete an open group from outside. ``complete`` for the reason that closed it, on repeats too."""
        ...

    async def group_get(self, id: str, *, outcomes: bool = True) -> GroupRecord | None:
        """The group; without ``outcomes`` their payloads are left out (states and errors stay)."""
        ...

    # state

    async def state_read(self, key: str) -> StateRead:
        """The value and version of ``key``, and the store's clock."""
        ...

    async def state_write(self, key: str, value: bytes, *, expect: int, ttl: float | None) -> int | None:
        """Set ``key`` if its version is ``expect`` (0: absent); the new version, or None when it is not.

        A version is never used twice for a key, not even after deletion or expiry. ``ttl`` in seconds.
        """
        ...

    async def state_delete(self, key: str, *, expect: int | None = None) -> bool:
        """Remove ``key``, if ``expect`` is None or its version; whether it was removed."""
        ...

    async def state_scan(self, prefix: str) -> Sequence[StateEntry]:
        """Every key that starts with ``prefix``."""
        ...

    # limiter

    async def limit_take(self, key: str, permits: int, rate: float, burst: int) -> LimitAnswer:
        """Take ``permits`` (all or none) from a bucket refilled at ``rate`` per second, at most ``burst`` full.

        The generic cell rate algorithm (ITU-T I.371): any window of T seconds grants at most
        ``burst + rate * T``. Time is the store's.

        :raises ValueError: ``permits > burst``: it could never be granted.
        """
        ...
