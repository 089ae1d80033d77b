"""Faults of laws 30 to 32."""

from __future__ import annotations

from typing import Any

from stem_core.builtin.memory.committer import MemoryCommitter
from stem_core.contracts import CommitterContract
from stem_core.ports.committer import Step
from stem_core.status import RANK_TERMINAL, merge
from tests.faults.harness import broken
from tests.faults.memory import MemoryBroker, broker_spec, committer
from tests.faults.publishing import changed


def committing(law: int, name: str, **methods: Any) -> None:
    def make() -> Any:
        return committer(type("C", (MemoryCommitter,), methods))

    make.__name__ = name
    broken(law, CommitterContract)(make)


# law 30


def _parts_in_turn(self, step, now, queues):
    """No transaction: what comes before the part that fails stays done."""
    for update in step.updates:
        done = self._store.records.record(update, now)
        if not done and update.rank == RANK_TERMINAL:
            return False
    return MemoryCommitter._commit(self, changed(step, updates=()), now, queues)


def _settles_first(self, step, now, queues):
    """The ack, then the rest: an end that is refused has lost the message."""
    if step.settlement is not None:
        if not self._store.queues.holds(step.settlement.receipt):
            return False
        self._store.queues.settle(step.settlement.receipt, step.settlement.action, now)
    return MemoryCommitter._commit(self, changed(step, settlement=None), now, queues)


def _stale_is_nothing(self, step, now, queues):
    """A stale receipt settles nothing, and the rest is done all the same."""
    if step.settlement is not None and not self._store.queues.holds(step.settlement.receipt):
        MemoryCommitter._commit(self, changed(step, settlement=None), now, queues)
        return False
    return MemoryCommitter._commit(self, step, now, queues)


def _every_refusal(self, updates, now):
    merged = MemoryCommitter._merged(self, updates, now)
    return None if merged is None or len(merged) < len(updates) else merged


def _no_refusal(self, updates, now):
    """A refused end is left out, and the step is done without it."""
    kept = [u for u in updates if u.rank < RANK_TERMINAL or merge(self._store.records.fetch(u.id, now), u)]
    return MemoryCommitter._merged(self, kept, now) or []


def _known_once(self, step, now, queues):
    """A once id that is known is a conflict, and conflicts roll back."""
    known = [
        m
        for m in step.publishes
        if m.queue in self._store.queues._queues and m.id in self._store.queues._queues[m.queue].by_id
    ]
    return False if known else MemoryCommitter._commit(self, step, now, queues)


def _blind(self, updates, now):
    """Each update is merged with what was there before the step."""
    merged = []
    for update in updates:
        status = merge(self._store.records.fetch(update.id, now), update)
        if status is not None:
            merged.append((status, update.ttl))
        elif update.rank == RANK_TERMINAL:
            return None
    return merged


committing(30, "parts_are_done_in_turn", _commit=_parts_in_turn)
committing(30, "the_ack_is_not_taken_back", _commit=_settles_first)
committing(30, "a_stale_receipt_is_left_out", _commit=_stale_is_nothing)
committing(30, "every_refusal_refuses_the_step", _merged=_every_refusal)
committing(30, "a_refused_end_is_left_out", _merged=_no_refusal)
committing(30, "a_known_once_id_refuses_the_step", _commit=_known_once)
committing(30, "updates_of_a_step_do_not_see_each_other", _merged=_blind)


# law 31


async def _all_or_none(self, steps):
    """One transaction for the batch: a bad step undoes the good ones."""
    now = self._store.clock.time()
    for step in steps:
        if step.settlement is not None and not self._store.queues.holds(step.settlement.receipt):
            return [False] * len(steps)
        if self._merged(step.updates, now) is None:
            return [False] * len(steps)
    return await MemoryCommitter.commit(self, steps)


async def _stops(self, steps):
    done = []
    for step in steps:
        done += await MemoryCommitter.commit(self, [step])
        if not done[-1]:
            break
    return [*done, *[False] * (len(steps) - len(done))]


async def _one_by_kind(self, steps):
    """All settlements of the batch, then everything else of every step."""
    settled = list(await MemoryCommitter.commit(self, [Step(settlement=step.settlement) for step in steps]))
    await MemoryCommitter.commit(self, [changed(step, settlement=None) for step in steps])
    return settled


committing(31, "a_bad_step_undoes_the_batch", commit=_all_or_none)
committing(31, "a_bad_step_ends_the_batch", commit=_stops)
committing(31, "a_batch_goes_by_kind", commit=_one_by_kind)


# law 32


def _nobody_calls(self, group, now, queues):
    """Left to the worker: one that dies now leaves the callback unpublished for ever."""


def _no_row(self, group, now, queues):
    for callback in self._store.records.callback(group, now):
        self._store.queues.publish(callback.message, now)


def _row_goes_back(self, group, now, queues):
    for callback in self._store.records.callback(group, now):
        self._store.queues.publish(callback.message, now)
        self._store.records.put(merge(None, callback.queued), callback.queued.ttl, now)


def _calls_anew(self, group, now, queues):
    """A new id each time: a repeated step publishes the callback again."""
    for callback in self._store.records.callback(group, now):
        self.count = getattr(self, "count", 0) + 1
        self._store.queues.publish(changed(callback.message, id=f"{callback.message.id}.{self.count}"), now)
        self._store.records.record(callback.queued, now)


def _only_success(self, group, now, queues):
    record = self._store.records.group_get(group, True, now)
    if all(outcome.state == "succeeded" for outcome in record.outcomes.values()):
        MemoryCommitter._publish_callback(self, group, now, queues)


def _at_once(self, group, now, queues):
    for callback in self._store.records.callback(group, now):
        self._store.queues.publish(changed(callback.message, delay=0.0), now)
        self._store.records.record(callback.queued, now)


def _no_order(self, updates, now):
    return [(merge(None, update), update.ttl) for update in updates]


async def _silent(self, steps):
    store = self._store
    with store.lock:
        now = store.clock.time()
        return [self._commit(step, now, set()) for step in steps]


committing(32, "the_worker_publishes_the_callback", _publish_callback=_nobody_calls)
committing(32, "a_callback_without_its_row", _publish_callback=_no_row)
committing(32, "a_callbacks_row_goes_back", _publish_callback=_row_goes_back)
committing(32, "a_callback_is_published_anew", _publish_callback=_calls_anew)
committing(32, "a_callback_only_on_success", _publish_callback=_only_success)
committing(32, "a_callback_forgets_its_delay", _publish_callback=_at_once)
committing(32, "a_step_wakes_nobody", commit=_silent)
committing(32, "a_step_writes_statuses_in_any_order", _merged=_no_order)


@broken(32, CommitterContract)
def any_backend_is_joined() -> Any:
    """The scheme is the same, so it must be the same store."""

    class Joining(MemoryBroker):
        def join(self, backend):
            return MemoryCommitter(self._store, self._check)

    from stem_core.builtin.plugin import MEMORY_BACKEND

    return {"broker": broker_spec(Joining), "backend": MEMORY_BACKEND, "clock": True}
