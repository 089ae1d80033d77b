"""The specification of a broker in code: what a broker may answer, and what is then true.

Pure. Every method takes what was asked, what was answered and when, raises
:class:`~stem_core.contracts.laws.LawBroken` where no correct broker could have answered so, and else follows.
Time is a :class:`~stem_core.contracts.time.Span`: what happened between the call and its answer. Where two
answers are legal the model believes the one it is given, and holds the broker to it from then on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeVar

from stem_core.clock import instant
from stem_core.contracts.laws import broken, check
from stem_core.contracts.time import Span
from stem_core.envelope import Ack, Action, DeadLetter, Delivery, Message, Release, Retry, Settlement
from stem_core.ports.broker import QueueStats
from stem_core.ports.capabilities import BrokerCapabilities

__all__ = ["BrokerModel", "Held", "Key", "Place"]

Key = tuple[str, str]
"""(queue, id)"""
Place = Literal["waiting", "leased", "dead", "gone"]
Chance = Literal["no", "maybe", "yes"]
T = TypeVar("T")


@dataclass(slots=True)
class Held:
    """One message, and all that is known of it."""

    message: Message
    order: int
    """When it was published; the fifo order."""
    due: Span
    why: int
    """The law that forbids delivering it before ``due``."""
    place: Place = "waiting"
    receipt: str | None = None
    lease: float = 0.0
    generation: int = 0
    attempt: int = 0
    deliveries: int = 0
    ghosts: int = 0
    """Cancelled receives that may have leased it, unseen: each may have counted a hand-out ..."""
    ghost_until: float = 0.0
    """... and may hide it until then."""
    plain: bool = True
    """Never delayed, never handed out: the fifo order binds it."""
    reason: str = ""
    detail: str = ""
    since: Span = field(default_factory=lambda: Span(0.0, 0.0))
    """Since when it is in its place: dead or gone."""
    end: str = ""
    """How it left: acked, purged, withdrawn, dropped."""

    @property
    def key(self) -> Key:
        return self.message.queue, self.message.id

    def __str__(self) -> str:
        return f"{self.message.id!r} of queue {self.message.queue!r}"


class BrokerModel:
    """All messages of one namespace. ``slack`` is how late, ``early`` how early a correct broker may look."""

    def __init__(
        self, capabilities: BrokerCapabilities, *, slack: float, early: float, once_ttl: float
    ) -> None:
        self.caps: Final = capabilities
        self.slack: Final = slack
        self.early: Final = early
        self.once_ttl: Final = once_ttl
        self.held: dict[Key, Held] = {}
        self.receipts: dict[str, Held | None] = {}
        """Every receipt ever given: its message while it is current, None when it is stale."""
        self._order = 0

    # what is where

    def chance(self, held: Held, now: Span) -> Chance:
        """Whether it may, or must, be handed out now."""
        if held.place not in {"waiting", "leased"} or now.hi < held.due.lo - self.early:
            return "no"
        if now.lo >= max(held.due.hi + self.slack, held.ghost_until):
            return "yes"
        return "maybe"

    def of(self, queues: Iterable[str], *places: Place) -> list[Held]:
        names = set(queues)
        return [
            held
            for held in self.held.values()
            if held.message.queue in names and (not places or held.place in places)
        ]

    def deadlines(self) -> list[Span]:
        """When leases end and delayed messages are due."""
        return sorted({held.due for held in self.held.values() if held.place in {"waiting", "leased"}})

    # publish

    def published(self, messages: Sequence[Message], answers: Sequence[bool], now: Span) -> None:
        pairs = zip(messages, answers, strict=True)
        for message, added in _true_first(pairs):
            self._published(message, added, now)

    def _published(self, message: Message, added: bool, now: Span) -> None:
        old = self.held.get((message.queue, message.id))
        if old is not None and old.place != "gone":
            check(not added, 2, f"{old} is {old.place} and publishing it again answered True")
            return
        if old is not None:
            forgotten = now.hi >= old.since.lo + self.once_ttl - self.early
            check(forgotten or not added, 2, f"{old} was {old.end} within once_ttl and was added again")
        else:
            check(added, 1 if not message.once else 2, f"the new message {message.id!r} was answered False")
        if added:
            self._order += 1
            due = now.plus(message.delay)
            if message.not_before is not None:
                at = message.not_before.timestamp()
                due = Span(max(due.lo, at), max(due.hi, at))
            self.held[message.queue, message.id] = Held(message, self._order, due, why=8, plain=due == now)

    # receive

    def received(
        self, queues: Sequence[str], limit: int, lease: float, answer: Sequence[Delivery], now: Span
    ) -> None:
        check(len(answer) <= limit, 14, f"receive(limit={limit}) gave {len(answer)} deliveries")
        ready = {held.key: held for held in self.of(queues) if self.chance(held, now) == "yes"}
        taken: dict[Key, Held] = {}
        for delivery in answer:
            held = self._deliverable(queues, delivery, now)
            check(held.key not in taken, 13, f"{held} came twice in one receive")
            taken[held.key] = held
        left = [held for key, held in ready.items() if key not in taken]
        check(
            bool(answer) or not left,
            left[0].why if left else 1,
            f"{', '.join(map(str, left))} must be ready (since {left[0].due if left else ''}, it is {now}) "
            "and receive gave nothing",
        )
        self._check_order(list(taken.values()), ready, left)
        for delivery, held in zip(answer, taken.values(), strict=True):
            self._leased(held, delivery, lease, now)

    def _deliverable(self, queues: Sequence[str], delivery: Delivery, now: Span) -> Held:
        message = delivery.message
        check(
            message.queue in queues, 10, f"asked for {queues}, got {message.id!r} of queue {message.queue!r}"
        )
        held = self.held.get((message.queue, message.id))
        if held is None:
            broken(3, f"{message.id!r} came from queue {message.queue!r}, where it was never published")
        if held.place == "gone":
            broken(5 if held.end == "acked" else 11, f"{held} was {held.end} and came again")
        if held.place == "dead":
            broken(12, f"{held} is dead and was delivered")
        if self.chance(held, now) == "no":
            broken(
                held.why, f"{held} ({held.place}) came {held.due.lo - now.hi:.3f} s before {held.due.lo:.3f}"
            )
        check(message.sealed == held.message.sealed, 3, f"the bytes of {held} came back different")
        check(
            message.priority == held.message.priority and (message.once or not held.message.once),
            3,
            f"{held} came back as {message}, published as {held.message}",
        )
        check(dict(message.route) == dict(held.message.route), 19, f"the route of {held} changed")
        check(delivery.receipt not in self.receipts, 5, f"receipt {delivery.receipt!r} was given twice")
        return held

    def _leased(self, held: Held, delivery: Delivery, lease: float, now: Span) -> None:
        counts = f"generation {delivery.generation}, attempt {delivery.attempt}"
        expected = f"generation {held.generation}, attempt {held.attempt}"
        check(counts == expected, 12 if held.generation != delivery.generation else 7,
              f"{held} came with {counts}, expected {expected}")  # fmt: skip
        least = held.deliveries + 1
        check(
            least <= delivery.deliveries <= least + held.ghosts,
            4 if held.place == "leased" else 7,
            f"{held} came with deliveries {delivery.deliveries}, expected {least}"
            + (f" to {least + held.ghosts}" if held.ghosts else ""),
        )
        due = now.plus(lease)
        until = delivery.lease_until.timestamp()
        tolerance = self.slack + self.early + 0.001
        check(
            due.lo - tolerance <= until <= due.hi + tolerance,
            4,
            f"lease_until of {held} is {delivery.lease_until}, expected {instant(due.lo)}",
        )
        self._stale(held)
        self.receipts[delivery.receipt] = held
        held.receipt, held.lease = delivery.receipt, lease
        held.place, held.due, held.why = "leased", due, 4
        held.deliveries, held.ghosts, held.ghost_until = delivery.deliveries, 0, 0.0
        held.plain = False

    def _check_order(self, taken: list[Held], ready: Mapping[Key, Held], left: list[Held]) -> None:
        levels = self.caps.priority_levels > 1
        for place, first in enumerate(taken):
            # Whatever was ready and comes later, or not at all, must not go before this one.
            for other in [*(held for held in taken[place + 1 :] if held.key in ready), *left]:
                same = other.message.queue == first.message.queue
                if levels and (same or self.caps.global_priority):
                    check(
                        other.message.priority <= first.message.priority,
                        9,
                        f"{first} (level {first.message.priority}) came before {other} "
                        f"(level {other.message.priority})",
                    )
                if self.caps.fifo and same and first.plain and other.plain:
                    later = other.order > first.order or other.message.priority != first.message.priority
                    check(later, 9, f"{first} came before {other}, which was published earlier")

    def cancelled(self, queues: Sequence[str], lease: float, now: Span) -> None:
        """A receive was cancelled: any of these may be leased, to nobody, at most until the lease's end."""
        for held in self.of(queues, "waiting", "leased"):
            if self.chance(held, now) != "no":
                held.ghosts += 1
                held.ghost_until = max(held.ghost_until, now.hi + lease + self.slack)
                held.plain = False

    # settle

    def settled(self, settlements: Sequence[Settlement], answers: Sequence[bool], now: Span) -> None:
        pairs = zip(settlements, answers, strict=True)
        for settlement, done in _true_first(pairs):
            held = self._answered(settlement.receipt, done, 5, "settle", now)
            if held is not None:
                self._stale(held)
                self._settle(held, settlement.action, now)

    def _answered(self, receipt: str, done: bool, law: int, what: str, now: Span) -> Held | None:
        """The message whose lease this receipt had, when the broker says it had."""
        held = self.receipts.get(receipt)
        if held is None:
            check(not done, 5, f"{what} with a stale receipt answered True")
            return None
        if held.place == "leased" and now.hi < held.due.lo - self.early:
            check(done, law, f"{what} of {held} answered False while its lease lasts until {held.due.lo:.3f}")
        if not done:  # between the end of the lease and the next delivery either answer is legal
            self._stale(held)
            held.place = "waiting"
            return None
        held.ghosts, held.ghost_until = 0, 0.0  # its receipt is current, so no unseen one is
        return held

    def _settle(self, held: Held, action: Action, now: Span) -> None:
        match action:
            case Ack():
                self._gone(held, "acked", now)
            case DeadLetter(reason, detail):
                if self.caps.dead_letters:
                    held.place, held.since = "dead", now
                    held.reason, held.detail = reason, detail
                else:
                    self._gone(held, "dropped", now)
            case Retry(delay):
                held.attempt += 1
                held.deliveries = 0
                held.place, held.due, held.why = "waiting", now.plus(delay), 7
            case Release(delay):
                held.deliveries -= 1
                held.place, held.due, held.why = "waiting", now.plus(delay), 7

    def _stale(self, held: Held) -> None:
        if held.receipt is not None:
            self.receipts[held.receipt] = None
            held.receipt = None

    def _gone(self, held: Held, end: str, now: Span) -> None:
        self._stale(held)
        held.place, held.end, held.since = "gone", end, now

    def extended(self, receipts: Sequence[str], lease: float, answers: Sequence[bool], now: Span) -> None:
        for receipt, done in zip(receipts, answers, strict=True):
            held = self._answered(receipt, done, 6, "extend", now)
            if held is not None:
                held.due, held.why, held.lease = now.plus(lease), 6, lease

    # operate

    def unsettled(self, held: Held, now: Span) -> bool:
        """Whether it may be ready or leased as the broker likes: its lease ended, or a ghost has or had it."""
        return (held.place == "leased" and self.chance(held, now) != "no") or held.ghosts > 0

    def counted(self, queue: str, stats: QueueStats, now: Span) -> None:
        """Check ``stats``: exact where nothing is legal either way."""
        counts = {"ready": 0, "scheduled": 0, "leased": 0, "dead": 0}
        free = 0
        for held in self.of([queue], "waiting", "leased", "dead"):
            chance = self.chance(held, now)
            if self.unsettled(held, now) or (held.place == "waiting" and chance == "maybe"):
                free += 1
            elif held.place == "waiting":
                counts["ready" if chance == "yes" else "scheduled"] += 1
            else:
                counts[held.place] += 1
        for name, least in counts.items():
            real = getattr(stats, name)
            most = least + (free if name != "dead" else 0)
            check(least <= real <= most, 11, f"stats({queue!r}).{name} is {real}, expected {least}"
                  + (f" to {most}" if most > least else ""))  # fmt: skip
        total = stats.ready + stats.scheduled + stats.leased + stats.dead
        wanted = sum(counts.values()) + free
        check(total == wanted, 11, f"stats({queue!r}) counts {total} messages, {wanted} are there")

    def purged(self, queue: str, count: int, now: Span) -> None:
        """Ask only while nothing of ``queue`` is :meth:`unsettled`."""
        gone = self.of([queue], "waiting")
        check(count == len(gone), 11, f"purge({queue!r}) says {count}, {len(gone)} were ready or scheduled")
        for held in gone:
            self._gone(held, "purged", now)

    def withdrawn(self, ids: Sequence[str], answers: Sequence[bool], now: Span) -> None:
        """Ask only while none of ``ids`` is :meth:`unsettled`."""
        for id, done in _true_first(zip(ids, answers, strict=True)):
            found = [held for held in self.held.values() if held.message.id == id and held.place == "waiting"]
            places = sorted({held.place for held in self.held.values() if held.message.id == id})
            check(done == bool(found), 17, f"withdraw of {id!r} answered {done}; it is {places or 'unknown'}")
            for held in found:
                self._gone(held, "withdrawn", now)

    # dead letters

    def dead(self, queue: str, ids: Sequence[str] | None = None, reason: str | None = None) -> list[Held]:
        """The dead letters that match."""
        return [
            held
            for held in self.of([queue], "dead")
            if (ids is None or held.message.id in ids) and (reason is None or held.reason == reason)
        ]

    def replayed(self, matching: Sequence[Held], limit: int | None, answer: Sequence[tuple[str, int]],
                 now: Span, *, dry_run: bool = False) -> None:  # fmt: skip
        by_id = {held.message.id: held for held in matching}
        wanted = len(matching) if limit is None else min(limit, len(matching))
        check(len(answer) == len({id for id, _ in answer}) == wanted, 12,
              f"replay of {wanted} dead letters answered {list(answer)}")  # fmt: skip
        for id, generation in answer:
            held = by_id.get(id)
            if held is None:
                broken(12, f"replay answered {id!r}, which does not match")
            check(generation == held.generation + 1, 12,
                  f"replay of {held} says generation {generation}, it was {held.generation}")  # fmt: skip
            if not dry_run:
                held.generation, held.attempt, held.deliveries = generation, 0, 0
                held.place, held.due, held.why = "waiting", now, 12

    def dead_purged(self, matching: Sequence[Held], gone: Sequence[str], now: Span) -> None:
        """``gone`` are the ids that are no longer listed."""
        for held in matching:
            if held.message.id in gone:
                self._gone(held, "purged", now)


def _true_first(pairs: Iterable[tuple[T, bool]]) -> list[tuple[T, bool]]:
    """Of equal ones in a batch any may be the one that counted: the one that answered True. Stable."""
    return sorted(pairs, key=lambda pair: not pair[1])
