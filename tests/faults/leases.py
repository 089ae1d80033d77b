"""Faults of laws 4 to 6."""

from __future__ import annotations

import math
from typing import Any

from stem_core.contracts import BrokerContract
from stem_core.envelope import Ack, DeadLetter
from tests.faults.harness import broken
from tests.faults.memory import MemoryBroker, Queues, broker
from tests.faults.publishing import changed

# law 4: leases


@broken(4, BrokerContract)
def one_visibility_timeout_for_all() -> Any:
    class Q(Queues):
        def receive(self, names, limit, lease, now):
            return super().receive(names, limit, 30.0, now)

    return broker(queues=Q)


@broken(4, BrokerContract)
def a_shorter_lease_steals() -> Any:
    """Idle time is measured against the lease of whoever asks."""

    class Q(Queues):
        def receive(self, names, limit, lease, now):
            for name in names:
                queue = self._queues.get(name)
                for entry in list(queue.leased if queue else ()):
                    if entry.since + lease <= now:
                        self._end(queue, entry, now)
            found = super().receive(names, limit, lease, now)
            for each in found:
                self._leases[each.receipt][1].since = now
            return found

        def _end(self, queue, entry, now):
            queue.leased.remove(entry.lease)
            self._end_lease(entry)
            queue.make_ready(entry, now)

        def publish(self, message, now):
            added = super().publish(message, now)
            entry = self._queues[message.queue].by_id.get(message.id)
            if entry is not None and type(entry).__name__ == "Entry":
                entry.__class__ = _timed(type(entry))
            return added

    return broker(queues=Q)


def _timed(kind: type) -> type:
    """Entries that can also hold when they were leased."""
    if not hasattr(kind, "timed"):
        kind.timed = type("TimedEntry", (kind,), {"__slots__": (), "since": property(_get, _set)})
    return kind.timed


_SINCE: dict[int, float] = {}


def _get(entry: Any) -> float:
    return _SINCE.get(id(entry), math.inf)


def _set(entry: Any, value: float) -> None:
    _SINCE[id(entry)] = value


@broken(4, BrokerContract)
def a_reclaim_is_not_counted() -> Any:
    """Claimed with a flag that leaves the delivery count alone: a poison message loops for ever."""

    class Q(Queues):
        def _lease(self, queue, entry, until, until_instant):
            entry.deliveries = 0
            return super()._lease(queue, entry, until, until_instant)

    return broker(queues=Q)


@broken(4, BrokerContract)
def reclaimed_a_little_early() -> Any:
    """A sweeper that gives back what is about to end."""

    class Q(Queues):
        def advance(self, queue, now):
            scheduled = queue.scheduled
            super().advance(queue, now)
            while (key := queue.leased.first()) is not None and key[0] <= now + 0.05:
                entry = queue.leased.pop()
                self._end_lease(entry)
                queue.make_ready(entry, now)
            assert scheduled is queue.scheduled

    return broker(queues=Q)


@broken(4, BrokerContract)
def liveness_is_the_clients() -> Any:
    """A lease lasts as long as the connection that took it."""

    class Q(Queues):
        def receive(self, names, limit, lease, now):
            return super().receive(names, limit, max(lease, 86_400.0), now)

    return broker(queues=Q)


@broken(4, BrokerContract)
def the_deadline_told_is_another() -> Any:
    class B(MemoryBroker):
        async def receive(self, queues, **kw):
            from datetime import timedelta

            found = await super().receive(queues, **kw)
            return [changed(d, lease_until=d.lease_until + timedelta(seconds=1)) for d in found]

    return broker(B)


# law 5: fencing


class Unfenced(Queues):
    """Settles by what the receipt names, not by whether it is current. ``honoured`` says which stale ones."""

    def __init__(self, once_ttl):
        super().__init__(once_ttl)
        self.given = {}

    def _lease(self, queue, entry, until, until_instant):
        found = super()._lease(queue, entry, until, until_instant)
        self.given[found.receipt] = entry
        return found

    def honoured(self, entry, receipt):
        return entry.receipt is not None

    def current(self, receipt):
        entry = self.given.get(receipt)
        if receipt in self._leases or entry is None or not self.honoured(entry, receipt):
            return receipt
        return entry.receipt

    def settle(self, receipt, action, now):
        return super().settle(self.current(receipt), action, now)

    def extend(self, receipt, lease, now):
        return super().extend(self.current(receipt), lease, now)


@broken(5, BrokerContract)
def settled_by_id() -> Any:
    """WHERE id = ...: a zombie settles and extends another worker's lease."""
    return broker(queues=Unfenced)


@broken(5, BrokerContract)
def settled_by_owner() -> Any:
    """The fence is who holds it: a consumer's old run settles its own new lease."""

    class Q(Unfenced):
        owner = None

        def __init__(self, once_ttl):
            super().__init__(once_ttl)
            self.owners = {}

        def _lease(self, queue, entry, until, until_instant):
            found = super()._lease(queue, entry, until, until_instant)
            self.owners[found.receipt] = self.owner
            return found

        def honoured(self, entry, receipt):
            return entry.receipt is not None and self.owners.get(receipt) is self.owners.get(entry.receipt)

    class B(MemoryBroker):
        def _receive(self, names, limit, lease):
            self._store.queues.owner = self
            return super()._receive(names, limit, lease)

    return broker(B, Q)


@broken(5, BrokerContract)
def extend_is_not_fenced() -> Any:
    """Settling is; a heartbeat is not."""

    class Q(Unfenced):
        def settle(self, receipt, action, now):
            return Queues.settle(self, receipt, action, now)

    return broker(queues=Q)


@broken(5, BrokerContract)
def a_stale_settle_reports_success() -> Any:
    class B(MemoryBroker):
        async def settle(self, settlements):
            return [True for _ in await super().settle(settlements)]

    return broker(B)


@broken(5, BrokerContract)
def a_stale_settle_acts_and_reports_failure() -> Any:
    """The answer is right, the effect is not."""

    class B(MemoryBroker):
        async def settle(self, settlements):
            queues = self._store.queues
            good = [s.receipt in queues._leases for s in settlements]
            await super().settle(settlements)
            return good

    return broker(B, Unfenced)


@broken(5, BrokerContract)
def an_ack_is_idempotent() -> Any:
    """Acking what was acked is told True: nobody learns that the lease was lost."""

    class Q(Queues):
        def __init__(self, once_ttl):
            super().__init__(once_ttl)
            self.acked = set()

        def settle(self, receipt, action, now):
            done = super().settle(receipt, action, now)
            if isinstance(action, Ack) and (done or receipt in self.acked):
                self.acked.add(receipt)
                return done or "q"
            return done

    return broker(queues=Q)


@broken(5, BrokerContract)
def receipts_start_again() -> Any:
    """The token is the delivery count, which Retry puts back to 0: an old token becomes good."""

    class Q(Queues):
        def _lease(self, queue, entry, until, until_instant):
            found = super()._lease(queue, entry, until, until_instant)
            token = f"{entry.message.queue}/{entry.message.id}/{entry.generation}/{entry.deliveries}"
            self._leases[token] = self._leases.pop(found.receipt)
            entry.receipt = token
            return changed(found, receipt=token)

    return broker(queues=Q)


@broken(5, BrokerContract)
def a_stale_dead_letter_copies() -> Any:
    """Dead-lettering adds to the dead first, then finds that the lease was lost."""

    class Q(Unfenced):
        def settle(self, receipt, action, now):
            entry = self.given.get(receipt)
            if isinstance(action, DeadLetter) and entry is not None and receipt not in self._leases:
                queue = self._queues[entry.message.queue]
                if entry.message.id in queue.by_id and entry.receipt:
                    self._bury(queue, entry, action, now)
            return Queues.settle(self, receipt, action, now)

        def extend(self, receipt, lease, now):
            return Queues.extend(self, receipt, lease, now)

    return broker(queues=Q)


# law 6: extend


def extending(extend: Any, name: str, law: int = 6) -> None:
    def make() -> Any:
        class Q(Queues):
            pass

        Q.extend = extend
        return broker(queues=Q)

    make.__name__ = name
    broken(law, BrokerContract)(make)


def _added(self, receipt, lease, now):
    entry = self._leases.get(receipt, (None, None))[1]
    return Queues.extend(self, receipt, lease + (entry.lease[0] - now if entry else 0), now)


def _nothing(self, receipt, lease, now):
    return self._leases[receipt][1].message.queue if receipt in self._leases else None


def _counted(self, receipt, lease, now):
    if receipt in self._leases:
        self._leases[receipt][1].deliveries += 1
    return Queues.extend(self, receipt, lease, now)


def _never_shorter(self, receipt, lease, now):
    entry = self._leases.get(receipt, (None, None))[1]
    return Queues.extend(self, receipt, max(lease, entry.lease[0] - now) if entry else lease, now)


def _ack_and_delay(self, receipt, lease, now):
    """Ack, then add to the delayed set: what runs longer than a lease is sure to run twice."""
    entry = self._leases.get(receipt, (None, None))[1]
    if entry is None:
        return None
    Queues.extend(self, receipt, lease, now)
    queue = self._queues[entry.message.queue]
    queue.leased.remove(entry.lease)
    self._end_lease(entry)
    queue.schedule(entry, now + lease)
    return entry.message.queue


extending(_added, "extend_adds_to_the_deadline")
extending(_nothing, "extend_is_forgotten")
extending(_counted, "extend_counts_a_hand_out")
extending(_never_shorter, "extend_never_makes_it_shorter")
extending(_ack_and_delay, "extend_acks_and_delays")
