"""One store for broker and backend: finishing a batch of tasks in one round trip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from stem_core.envelope import Message, Settlement
from stem_core.ports.backend import GroupOutcome
from stem_core.status import StatusUpdate

__all__ = ["Committer", "Step"]


class Step(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What happens together or not at all: at a publish, or at the end of a run.

    The order inside: settlement, updates, publishes, outcomes. When an outcome completes a group, the
    store publishes the group's callback and writes its ``queued`` rows in the same step.
    """

    settlement: Settlement | None = None
    updates: tuple[StatusUpdate, ...] = ()
    publishes: tuple[Message, ...] = ()
    outcomes: tuple[GroupOutcome, ...] = ()


class Committer(Protocol):
    """Applies steps atomically; made by ``Broker.join`` when both share one store."""

    async def commit(self, steps: Sequence[Step]) -> Sequence[bool]:
        """Whether each step was done. False: a stale receipt or a refused *terminal* update; nothing of that
        step was written, and the other steps are untouched. Other refused updates and known ``once`` ids
        change nothing else (laws 30 to 32).

        :raises PayloadTooLarge: before anything was stored.
        :raises PublishError: ``outcome="refused"``: the steps only enqueue, and nothing of them was stored.
        :raises AdapterError: any subset of the steps may have been done, each whole.
        """
        ...
