"""Faults of law 12: dead letters."""

from __future__ import annotations

from typing import Any

from stem_core.contracts import BrokerContract
from stem_core.envelope import DeadPage
from tests.faults.harness import broken
from tests.faults.memory import MemoryBroker, Queues, broker
from tests.faults.publishing import changed

# law 12: dead letters


def dying(name: str, **methods: Any) -> None:
    def make() -> Any:
        return broker(queues=type("Q", (Queues,), methods))

    make.__name__ = name
    broken(12, BrokerContract)(make)


def _replay_copies(self, name, place, now):
    entry, dead = self._queues[name].dead[place]
    answer = Queues.replay(self, name, place, now)
    self._queues[name].dead[place] = (entry, dead)
    return answer


def _replay_keeps_attempt(self, name, place, now):
    entry, _ = self._queues[name].dead[place]
    attempt = entry.attempt
    answer = Queues.replay(self, name, place, now)
    entry.attempt = attempt
    return answer


def _replay_keeps_deliveries(self, name, place, now):
    entry, _ = self._queues[name].dead[place]
    deliveries = entry.deliveries
    answer = Queues.replay(self, name, place, now)
    entry.deliveries = deliveries
    return answer


def _replay_forgets_generation(self, name, place, now):
    entry, _ = self._queues[name].dead[place]
    answer = Queues.replay(self, name, place, now)
    entry.generation = 0
    return answer


def _replay_publishes_again(self, name, place, now):
    """Removes, then publishes: a once id is known and the message is lost."""
    entry, _ = self._queues[name].dead[place]
    self.forget_dead(name, place, now)
    self.publish(entry.message, now)
    return entry.message.id, entry.generation + 1


def _replay_waits_again(self, name, place, now):
    entry, _ = self._queues[name].dead[place]
    answer = Queues.replay(self, name, place, now)
    if entry.message.delay:
        queue = self._queues[name]
        queue.levels[entry.message.priority].remove(entry.order)
        queue.schedule(entry, now + entry.message.delay)
    return answer


def _short_detail(self, queue, entry, action, now):
    return Queues._bury(self, queue, entry, changed(action, detail=action.detail[:255]), now)


def _no_reason(self, name, after, matches):
    return Queues.dead(self, name, after, lambda dead: matches(changed(dead, reason="rejected")))


dying("replay_leaves_a_copy", replay=_replay_copies)
dying("replay_keeps_the_attempt", replay=_replay_keeps_attempt)
dying("replay_keeps_the_hand_outs", replay=_replay_keeps_deliveries)
dying("replay_is_the_same_generation", replay=_replay_forgets_generation)
dying("replay_removes_then_publishes", replay=_replay_publishes_again)
dying("replay_waits_for_the_first_delay", replay=_replay_waits_again)
dying("details_are_cut", _bury=_short_detail)
dying("the_reason_is_no_filter", dead=_no_reason)


@broken(12, BrokerContract)
def pages_continue_after_a_time() -> Any:
    """The cursor is a time: of several that died in one moment the rest is skipped."""

    class B(MemoryBroker):
        async def dead_list(self, queue, *, cursor=None, limit=100, **filters):
            page = await super().dead_list(queue, limit=10_000, **filters)
            items = [d for d in page.items if cursor is None or d.dead_at.isoformat() > cursor]
            more = items[limit - 1].dead_at.isoformat() if len(items) > limit else None
            return DeadPage(tuple(items[:limit]), more)

    return broker(B)


@broken(12, BrokerContract)
def purge_keeps_the_oldest() -> Any:
    class B(MemoryBroker):
        async def dead_purge(self, queue, *, keep=0, limit=None, **filters):
            found = (await self.dead_list(queue, limit=10_000, **filters)).items
            ids = [d.message.id for d in found[keep:]][:limit]
            return await super().dead_purge(queue, ids=ids)

    return broker(B)


@broken(12, BrokerContract)
def a_dry_run_acts() -> Any:
    class B(MemoryBroker):
        async def dead_replay(self, queue, *, dry_run=False, **filters):
            return await super().dead_replay(queue, **filters)

    return broker(B)
