"""The messages of a memory store: laws 1 to 17, one small method for each thing that can happen to one.

Not locked: the store's lock is held by whoever calls. ``now`` is the store's clock in epoch seconds.
"""

from __future__ import annotations

import itertools
import secrets
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Final

from stem_core.builtin.memory.ordered import Ordered
from stem_core.clock import instant
from stem_core.envelope import Ack, Action, DeadLetter, DeadMessage, Delivery, Message, Release, Retry
from stem_core.ports.broker import QueueStats

__all__ = ["LEVELS", "DeadFilter", "Queues"]

LEVELS: Final = 10

DeadFilter = Callable[[DeadMessage], bool]


class Entry:
    """One message and where it is: ready in a level, scheduled, leased (with ``receipt``) or dead."""

    __slots__ = (
        "attempt", "deliveries", "due", "generation", "lease", "message", "order", "ready_since", "receipt",
    )  # fmt: skip

    def __init__(self, message: Message, order: int) -> None:
        self.message = message
        self.order = order
        self.generation = 0
        self.attempt = 0
        self.deliveries = 0
        self.ready_since = 0.0
        self.due: tuple[float, int] | None = None  # its key in ``Queue.scheduled``
        self.lease: tuple[float, int] | None = None  # its key in ``Queue.leased``
        self.receipt: str | None = None


class Queue:
    """One queue. Every live message is in ``by_id`` and in exactly one of the other places."""

    __slots__ = ("by_id", "dead", "leased", "levels", "scheduled")

    def __init__(self) -> None:
        self.by_id: dict[str, Entry] = {}
        self.levels: list[Ordered[int, Entry]] = [Ordered() for _ in range(LEVELS)]
        self.scheduled: Ordered[tuple[float, int], Entry] = Ordered()
        self.leased: Ordered[tuple[float, int], Entry] = Ordered()
        self.dead: dict[int, tuple[Entry, DeadMessage]] = {}  # by order of death, oldest first

    def make_ready(self, entry: Entry, now: float) -> None:
        entry.ready_since = now
        self.levels[entry.message.priority].add(entry.order, entry)

    def schedule(self, entry: Entry, due: float) -> None:
        entry.due = (due, entry.order)
        self.scheduled.add(entry.due, entry)

    def place(self, entry: Entry, delay: float, now: float) -> None:
        if delay > 0:
            self.schedule(entry, now + delay)
        else:
            self.make_ready(entry, now)

    def next_event(self) -> float | None:
        """When the next scheduled message is due or the next lease ends."""
        keys = [key for key in (self.scheduled.first(), self.leased.first()) if key is not None]
        return min(keys)[0] if keys else None


class Queues:
    """Every queue of one store."""

    def __init__(self, once_ttl: float) -> None:
        self._once_ttl = once_ttl
        self._queues: dict[str, Queue] = {}
        self._order = itertools.count(1)
        self._leases: dict[str, tuple[Queue, Entry]] = {}  # by receipt
        self._prefix = secrets.token_hex(4)  # no receipt of another store is one of ours
        self._remembered: dict[tuple[str, str], None] = {}  # (queue, id) of settled ``once`` messages
        self._forget: deque[tuple[float, tuple[str, str]]] = deque()  # when to forget them

    # publish

    def publish(self, message: Message, now: float) -> bool:
        """Add it; False when the id is known. Ids are unique in a queue, ``once`` or not."""
        queue = self._queues.get(message.queue)
        if queue is None:
            queue = self._queues[message.queue] = Queue()
        self._forget_old(now)
        if message.id in queue.by_id or (message.once and (message.queue, message.id) in self._remembered):
            return False
        entry = queue.by_id[message.id] = Entry(message, next(self._order))
        due = now + message.delay
        if message.not_before is not None:
            due = max(due, message.not_before.timestamp())
        if due > now:
            queue.schedule(entry, due)
        else:
            queue.make_ready(entry, now)
        return True

    def _gone(self, queue: Queue, entry: Entry, now: float) -> None:
        """The message left for good; remember its id for a while if it may be published again."""
        message = entry.message
        del queue.by_id[message.id]
        if message.once:
            key = (message.queue, message.id)
            self._remembered[key] = None
            self._forget.append((now + self._once_ttl, key))
            self._forget_old(now)

    def _forget_old(self, now: float) -> None:
        forget = self._forget
        while forget and forget[0][0] <= now:
            self._remembered.pop(forget.popleft()[1], None)

    # receive

    def receive(self, names: Sequence[str], limit: int, lease: float, now: float) -> list[Delivery]:
        """Lease up to ``limit`` ready messages: highest level first, queues of one level in turn."""
        queues = [queue for queue in map(self._queues.get, names) if queue is not None]
        for queue in queues:
            self.advance(queue, now)
        until = now + lease
        until_instant = instant(until)
        deliveries: list[Delivery] = []
        for level in range(LEVELS - 1, -1, -1):
            turn = deque(queue for queue in queues if queue.levels[level])
            while turn and len(deliveries) < limit:
                queue = turn.popleft()
                entry = queue.levels[level].pop()
                if entry is not None:
                    deliveries.append(self._lease(queue, entry, until, until_instant))
                    turn.append(queue)
        return deliveries

    def _lease(self, queue: Queue, entry: Entry, until: float, until_instant: datetime) -> Delivery:
        token = next(self._order)
        entry.receipt = receipt = f"{self._prefix}.{token}"
        entry.deliveries += 1
        entry.lease = (until, token)
        queue.leased.add(entry.lease, entry)
        self._leases[receipt] = (queue, entry)
        return Delivery(
            message=entry.message,
            receipt=receipt,
            lease_until=until_instant,
            generation=entry.generation,
            attempt=entry.attempt,
            deliveries=entry.deliveries,
        )

    def advance(self, queue: Queue, now: float) -> None:
        """What time brings: due messages become ready, ended leases are lost."""
        while (key := queue.scheduled.first()) is not None and key[0] <= now:
            entry = queue.scheduled.pop()
            if entry is not None:
                entry.due = None
                queue.make_ready(entry, key[0])
        while (key := queue.leased.first()) is not None and key[0] <= now:
            entry = queue.leased.pop()
            if entry is not None:
                self._end_lease(entry)
                queue.make_ready(entry, key[0])

    def next_event(self, names: Sequence[str]) -> float | None:
        """When time alone may make something of these queues ready."""
        times = [self._queues[name].next_event() for name in names if name in self._queues]
        return min((time for time in times if time is not None), default=None)

    def scheduled(self, names: Sequence[str]) -> list[tuple[float, Message]]:
        """What is scheduled in these queues, and when it is due; the next first."""
        found = [
            (entry.due, entry.message)
            for name in names
            if name in self._queues
            for entry in self._queues[name].scheduled
            if entry.due is not None
        ]
        return [(due, message) for (due, _), message in sorted(found, key=lambda each: each[0])]

    # settle

    def holds(self, receipt: str) -> bool:
        """Whether the receipt is the message's current one. It is until the message is taken back."""
        return receipt in self._leases

    def settle(self, receipt: str, action: Action, now: float) -> str | None:
        """Do it; None when the lease was lost, else the queue."""
        found = self._leases.get(receipt)
        if found is None:
            return None
        queue, entry = found
        if entry.lease is not None:
            queue.leased.remove(entry.lease)
        self._end_lease(entry)
        if isinstance(action, Ack):
            self._gone(queue, entry, now)
        elif isinstance(action, Retry):
            entry.attempt += 1
            entry.deliveries = 0
            queue.place(entry, action.delay, now)
        elif isinstance(action, Release):
            entry.deliveries -= 1
            queue.place(entry, action.delay, now)
        else:
            self._bury(queue, entry, action, now)
        return entry.message.queue

    def _end_lease(self, entry: Entry) -> None:
        if entry.receipt is not None:
            del self._leases[entry.receipt]
        entry.receipt = entry.lease = None

    def _bury(self, queue: Queue, entry: Entry, action: DeadLetter, now: float) -> None:
        dead = DeadMessage(
            message=entry.message,
            reason=action.reason,
            detail=action.detail,
            dead_at=instant(now),
            generation=entry.generation,
            attempt=entry.attempt,
        )
        queue.dead[next(self._order)] = (entry, dead)

    def extend(self, receipt: str, lease: float, now: float) -> str | None:
        """Move the deadline to now + ``lease``; None when the lease was lost, else the queue."""
        found = self._leases.get(receipt)
        if found is None:
            return None
        queue, entry = found
        if entry.lease is not None:
            queue.leased.remove(entry.lease)
        entry.lease = (now + lease, next(self._order))
        queue.leased.add(entry.lease, entry)
        return entry.message.queue

    # operate

    def stats(self, name: str, now: float) -> QueueStats:
        """Counts, and the longest wait among the messages that are next in their levels."""
        queue = self._queues.get(name)
        if queue is None:
            return QueueStats()
        self.advance(queue, now)
        heads = [head.ready_since for level in queue.levels if (head := level.head()) is not None]
        return QueueStats(
            ready=sum(map(len, queue.levels)),
            scheduled=len(queue.scheduled),
            leased=len(queue.leased),
            dead=len(queue.dead),
            oldest_ready_age=now - min(heads) if heads else None,
        )

    def purge(self, name: str, now: float) -> int:
        queue = self._queues.get(name)
        if queue is None:
            return 0
        self.advance(queue, now)
        gone = [entry for level in queue.levels for entry in level] + list(queue.scheduled)
        for level in queue.levels:
            level.clear()
        queue.scheduled.clear()
        for entry in gone:
            self._gone(queue, entry, now)
        return len(gone)

    def withdraw(self, id: str, now: float) -> bool:
        """Remove it from every queue where it is ready or scheduled."""
        removed = False
        for queue in self._queues.values():
            entry = queue.by_id.get(id)
            if entry is None or entry.receipt is not None:
                continue
            if entry.due is not None:
                queue.scheduled.remove(entry.due)
            elif entry.order in queue.levels[entry.message.priority]:
                queue.levels[entry.message.priority].remove(entry.order)
            else:  # dead
                continue
            self._gone(queue, entry, now)
            removed = True
        return removed

    # dead letters

    def dead(self, name: str, after: int, matches: DeadFilter) -> Iterator[tuple[int, DeadMessage]]:
        """Matching dead letters after place ``after``, oldest first, each with its place."""
        queue = self._queues.get(name)
        if queue is not None:
            for place, (_, dead) in queue.dead.items():
                if place > after and matches(dead):
                    yield place, dead

    def replay(self, name: str, place: int, now: float) -> tuple[str, int]:
        """Make a dead letter ready again; its id and new generation."""
        queue = self._queues[name]
        entry, _ = queue.dead.pop(place)
        entry.order = next(self._order)
        entry.generation += 1
        entry.attempt = entry.deliveries = 0
        queue.make_ready(entry, now)
        return entry.message.id, entry.generation

    def forget_dead(self, name: str, place: int, now: float) -> None:
        queue = self._queues[name]
        entry, _ = queue.dead.pop(place)
        self._gone(queue, entry, now)
