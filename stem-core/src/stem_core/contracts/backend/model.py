"""The specification of groups in code (law 24). Statuses have ``stem_core.status.merge``."""

from __future__ import annotations

from stem_core.ports.backend import GroupAnswer, Outcome
from stem_core.status import TaskState

__all__ = ["GroupModel"]


class GroupModel:
    """One group. Pure: no time, no store."""

    def __init__(self, members: tuple[str, ...], has_callback: bool) -> None:
        self.members = members
        self.has_callback = has_callback
        self.outcomes: dict[str, Outcome] = {}
        self.completed_by: str | None = None if members else ""
        self.closed: str | None = None

    def add(self, member: str, outcome: Outcome) -> GroupAnswer:
        if member not in self.members:
            return GroupAnswer(0, False)
        if member not in self.outcomes:
            self.outcomes[member] = outcome
            failed = self.has_callback and outcome.state is not TaskState.SUCCEEDED
            if self.completed_by is None and (failed or len(self.outcomes) == len(self.members)):
                self.completed_by = member
        return GroupAnswer(self.left, self.completed_by == member)

    def close(self, reason: str) -> GroupAnswer:
        if self.completed_by is None:
            self.completed_by, self.closed = "", reason
        return GroupAnswer(self.left, self.closed == reason)

    @property
    def left(self) -> int:
        return len(self.members) - len(self.outcomes)
