"""Groups as pure values: how outcomes complete them (law 24)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from stem_core.ports.backend import Callback, GroupAnswer, GroupRecord, Outcome
from stem_core.status import TaskState

__all__ = ["Group"]


@dataclass(slots=True)
class Group:
    """One group, changing. ``completed_by`` as in :class:`GroupRecord`."""

    id: str
    members: tuple[str, ...]
    callback: tuple[Callback, ...]
    deadline: datetime | None
    ttl: float
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    completed_by: str | None = None
    closed: str | None = None
    _known: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self._known = frozenset(self.members)
        if not self.members:
            self.completed_by = ""

    def add(self, member: str, outcome: Outcome) -> GroupAnswer:
        """Count ``outcome`` once; the member that completed the group is told so on every repeat."""
        if member not in self._known:
            return GroupAnswer(0, False)
        if member not in self.outcomes:
            self.outcomes[member] = outcome
            failed = bool(self.callback) and outcome.state is not TaskState.SUCCEEDED
            if self.completed_by is None and (failed or self._left() == 0):
                self.completed_by = member
        return GroupAnswer(self._left(), self.completed_by == member)

    def close(self, reason: str) -> GroupAnswer:
        """Complete it from outside if it is open; the reason that did is told so on every repeat."""
        if self.completed_by is None:
            self.completed_by, self.closed = "", reason
        return GroupAnswer(self._left(), self.closed == reason)

    def record(self, *, outcomes: bool) -> GroupRecord:
        kept = (
            self.outcomes
            if outcomes
            else {member: Outcome(each.state, error=each.error) for member, each in self.outcomes.items()}
        )
        return GroupRecord(
            id=self.id,
            members=self.members,
            callback=self.callback,
            outcomes=dict(kept),
            completed_by=self.completed_by,
            closed=self.closed,
            deadline=self.deadline,
        )

    def _left(self) -> int:
        return len(self._known) - len(self.outcomes)
