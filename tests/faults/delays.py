"""Faults of laws 7 and 8."""

from __future__ import annotations

import math
from typing import Any

from stem_core.contracts import BrokerContract
from stem_core.envelope import Release, Retry
from tests.faults.harness import broken
from tests.faults.memory import Queues, broker
from tests.faults.publishing import changed

# law 7: counts and delays


def settling(change: Any, name: str) -> None:
    """``change(self, entry, action)`` after a settle, or the action to do instead."""

    def make() -> Any:
        class Q(Queues):
            def settle(self, receipt, action, now):
                entry = self._leases.get(receipt, (None, None))[1]
                if entry is None:
                    return None
                before = (entry.attempt, entry.deliveries)
                done = super().settle(receipt, change(entry, action, before, False) or action, now)
                change(entry, action, before, True)
                return done

        return broker(queues=Q)

    make.__name__ = name
    broken(7, BrokerContract)(make)


def _no_attempt(entry, action, before, after):
    if after and isinstance(action, Retry):
        entry.attempt = before[0]


def _keeps_deliveries(entry, action, before, after):
    if after and isinstance(action, Retry):
        entry.deliveries = before[1]


def _no_refund(entry, action, before, after):
    if after and isinstance(action, Release):
        entry.deliveries = before[1]


def _refunds_all(entry, action, before, after):
    if after and isinstance(action, Release):
        entry.deliveries = 0


def _release_is_retry(entry, action, before, after):
    if after and isinstance(action, Release):
        entry.attempt += 1


def _no_delay(entry, action, before, after):
    if not after and isinstance(action, Retry):
        return Retry()
    return None


def _no_release_delay(entry, action, before, after):
    if not after and isinstance(action, Release):
        return Release()
    return None


def _twice_the_delay(entry, action, before, after):
    if not after and isinstance(action, Retry):
        return Retry(action.delay * 2)
    return None


settling(_no_attempt, "retry_counts_nothing")
settling(_keeps_deliveries, "retry_keeps_the_hand_outs")
settling(_no_refund, "release_refunds_nothing")
settling(_refunds_all, "release_refunds_everything")
settling(_release_is_retry, "release_counts_an_attempt")
settling(_no_delay, "retry_is_at_once")
settling(_no_release_delay, "release_is_at_once")
settling(_twice_the_delay, "retry_waits_twice")


# law 8: delays


def publishing(change: Any, name: str) -> None:
    def make() -> Any:
        class Q(Queues):
            def publish(self, message, now):
                return super().publish(change(message, now), now)

        return broker(queues=Q)

    make.__name__ = name
    broken(8, BrokerContract)(make)


publishing(
    lambda m, now: changed(m, delay=max(0.0, math.floor(now + m.delay) - now)),
    "due_times_lose_their_fraction",
)
publishing(lambda m, now: changed(m, not_before=None), "not_before_is_for_the_producer")
publishing(lambda m, now: changed(m, delay=m.delay * 1.5), "delays_are_long")
publishing(lambda m, now: changed(m, delay=max(0.0, m.delay - 0.5)), "half_a_second_early")


@broken(8, BrokerContract)
def the_first_delayed_message_holds_up_the_rest() -> Any:
    """A delay queue that only looks at its head."""

    class Q(Queues):
        def advance(self, queue, now):
            waiting = sorted(queue.scheduled, key=lambda entry: entry.order)
            for entry in waiting:
                if entry.due[0] > now:
                    break
                queue.scheduled.remove(entry.due)
                entry.due = None
                queue.make_ready(entry, now)
            rest = {entry.due: entry for entry in queue.scheduled}
            queue.scheduled.clear()
            super().advance(queue, now)
            for due, entry in rest.items():
                queue.scheduled.add(due, entry)

    return broker(queues=Q)


@broken(8, BrokerContract)
def due_messages_wait_for_the_sweeper() -> Any:
    """Promoted by a sweep every five seconds, though the resolution declared is a millisecond."""

    class Q(Queues):
        def publish(self, message, now):
            due = now + message.delay
            if message.not_before is not None:
                due = max(due, message.not_before.timestamp())
            late = 0.0 if due <= now else (math.floor(due / 5) + 1) * 5 - due
            return super().publish(changed(message, delay=due - now + late, not_before=None), now)

    return broker(queues=Q)
