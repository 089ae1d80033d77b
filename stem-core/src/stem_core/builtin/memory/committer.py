"""The memory committer: whole steps under one lock (laws 30 to 32)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stem_core.builtin.memory.store import Store
from stem_core.envelope import Message
from stem_core.ports.committer import Step
from stem_core.status import RANK_TERMINAL, StatusUpdate, TaskStatus, merge

__all__ = ["MemoryCommitter"]


class MemoryCommitter:
    """Checks all of a step, then does all of it."""

    def __init__(self, store: Store, check: Callable[[Sequence[Message]], None]) -> None:
        self._store = store
        self._check = check

    async def commit(self, steps: Sequence[Step]) -> Sequence[bool]:
        self._check([message for step in steps for message in step.publishes])
        store = self._store
        with store.lock:
            now = store.clock.time()
            queues: set[str] = set()
            done = [self._commit(step, now, queues) for step in steps]
            for name in queues:
                store.for_messages.wake(name)
        return done

    def _commit(self, step: Step, now: float, queues: set[str]) -> bool:
        store = self._store
        if step.settlement is not None and not store.queues.holds(step.settlement.receipt):
            return False
        merged = self._merged(step.updates, now)
        if merged is None:
            return False
        if step.settlement is not None:
            queues.add(store.queues.settle(step.settlement.receipt, step.settlement.action, now) or "")
        for status, ttl in merged:
            store.records.put(status, ttl, now)
            if status.terminal:
                store.for_results.wake(status.id)
        for message in step.publishes:
            store.queues.publish(message, now)
            queues.add(message.queue)
        for each in step.outcomes:
            if store.records.group_add(each.group, each.member, each.outcome, now).complete:
                self._publish_callback(each.group, now, queues)
        return True

    def _merged(
        self, updates: Sequence[StatusUpdate], now: float
    ) -> list[tuple[TaskStatus, float | None]] | None:
        """What to write of ``updates``, in order; None when a terminal one is refused."""
        merged: list[tuple[TaskStatus, float | None]] = []
        staged: dict[str, TaskStatus] = {}
        for update in updates:
            status = merge(staged.get(update.id) or self._store.records.fetch(update.id, now), update)
            if status is not None:
                staged[update.id] = status
                merged.append((status, update.ttl))
            elif update.rank == RANK_TERMINAL:
                return None
        return merged

    def _publish_callback(self, group: str, now: float, queues: set[str]) -> None:
        """Also on a repeat: whoever completed it before may have stopped short of publishing."""
        for callback in self._store.records.callback(group, now):
            self._store.queues.publish(callback.message, now)
            self._store.records.record(callback.queued, now)
            queues.add(callback.message.queue)
