"""One store for broker and backend: finishing a batch of tasks in one round trip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import msgspec

from stem_core.envelope import Message, Settlement
from stem_core.ports.backend import GroupOutcome
from stem_core.status import StatusUpdate, TaskState

__all__ = ["Committer", "Ended", "Starter", "Step"]

#: Told what :meth:`Committer.commit` would have returned, or raised.
Ended = Callable[[Sequence[bool] | Exception], None]


class Step(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What happens together or not at all: at a publish, or at the end of a run.

    The order inside: settlement, updates, publishes, outcomes. When an outcome completes a group, the
    store publishes the group's callback and writes its ``queued`` rows in the same step.
    """

    settlement: Settlement | None = None
    updates: tuple[StatusUpdate, ...] = ()
    publishes: tuple[Message, ...] = ()
    outcomes: tuple[GroupOutcome, ...] = ()

    def is_new_work(self) -> bool:
        """Whether it is one message and the first status of its task, with nothing that only later ones say: the step
        that comes most often, for which a store may know a cheaper way.
        """
        if self.settlement is not None or self.outcomes or len(self.updates) != 1 or len(self.publishes) != 1:
            return False
        (update,) = self.updates
        return (
            update.state is TaskState.QUEUED
            and update.id == self.publishes[0].id
            and not (update.generation or update.attempt)
            and update.reason is None
            and update.payload is None
            and update.encoder is None
            and update.error is None
            and update.progress is None
            and update.started_at is None
            and update.finished_at is None
        )


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


@runtime_checkable
class Starter(Committer, Protocol):
    """A committer that can send steps and come back at once, so that the store works on them while the next are made.

    No adapter has to: without it, and whenever it answers False, the core calls :meth:`commit`.
    """

    enough: int
    """Steps that are worth a start of their own while others are under way: fewer wait for more."""

    def start(self, steps: Sequence[Step], timeout: float, ended: Ended) -> bool:
        """Begin what :meth:`commit` does, without waiting for anything. Never raises.

        What is started takes effect in the order it was started in.

        :param timeout: seconds after which it has failed at the latest, its fate unknown.
        :param ended: called once, on the loop, some time after this has returned.
        :returns: False when it cannot be done so now, and nothing was sent: there is no connection at hand, too much is
            under way, or these steps want another way.
        """
        ...
