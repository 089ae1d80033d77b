"""Any history of a broker, beside the model: the state machine.

Receipts are kept for ever, so that stale ones are used all the time. They are drawn by their place and no bundle
holds them: how many there are is the adapter's to say, and what hypothesis draws must not depend on it. Two rules
go where chance seldom does: *zombie* uses a receipt after its message was delivered again, to the same consumer
or another, and *edge* asks just before and just after a deadline.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence

import hypothesis.strategies as st
from hypothesis import note
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from stem_core.contracts.broker.lab import BrokerLab, Client
from stem_core.contracts.broker.model import BrokerModel, Held
from stem_core.contracts.laws import check
from stem_core.contracts.pace import LONG
from stem_core.contracts.time import Span
from stem_core.envelope import (
    Ack,
    Action,
    DeadLetter,
    DeadMessage,
    Delivery,
    Message,
    Release,
    Retry,
    Settlement,
)

__all__ = ["BrokerMachine", "broker_machine"]

QUEUES = ("a", "b", "ü c:{*}")
REASONS = ("rejected", "crash-loop")

queues = st.lists(st.sampled_from(QUEUES), min_size=1, max_size=3, unique=True)
queue = st.sampled_from(QUEUES)
who = st.integers(0, 1)
#: A receipt, counted back from the newest.
places = st.integers(0, 15)
#: Times are in units of the lab's short lease, which is 1.
delays = st.sampled_from((0.0, 0.0, 0.0, 0.4, 1.5))
leases = st.sampled_from((1.0, 1.0, 2.5, LONG))
actions = st.one_of(
    st.just(Ack()),
    st.builds(Retry, delays),
    st.builds(Release, delays),
    st.builds(DeadLetter, st.sampled_from(REASONS), st.text(max_size=3)),
)
#: (queue, number of a once id or None for a fresh plain message, delay, priority, content)
messages = st.tuples(
    queue, st.one_of(st.none(), st.integers(0, 3)), delays, st.integers(0, 9), st.binary(max_size=4)
)


class BrokerMachine(RuleBasedStateMachine):
    """One example. ``make`` opens a lab in a namespace of its own."""

    def __init__(self, make: Callable[[], BrokerLab]) -> None:
        super().__init__()
        self.lab = make()
        self.unit = self.lab.pace.lease
        self.exact = self.lab.pace.exact
        self.model = BrokerModel(
            self.lab.caps,
            slack=self.lab.pace.slack,
            early=self.lab.pace.early,
            once_ttl=self.lab.driver.once_ttl,
        )
        self.clients: list[Client] = []
        self.receipts: list[str] = []
        self.count = 0

    @initialize()
    def open(self) -> None:
        self.clients = [self.lab.client(), self.lab.client()]

    # publish and receive

    @rule(batch=st.lists(messages, min_size=1, max_size=4), by=who)
    def publish(self, batch: list[tuple[str, int | None, float, int, bytes]], by: int) -> None:
        client = self.clients[by]
        real = [self._message(*fields) for fields in batch]
        answers = client.publish(*real)
        self.model.published(real, answers, client.when)

    def _message(
        self, queue: str, number: int | None, delay: float, priority: int, content: bytes
    ) -> Message:
        self.count += 1
        levels, caps = self.lab.caps.priority_levels, self.lab.caps
        return Message(
            id=f"plain-{self.count}" if number is None else f"once-{number}",
            queue=queue,
            sealed=content + str(self.count).encode(),
            once=number is not None,
            priority=priority * levels // 10,
            delay=delay * self.unit if caps.delay and self.count % 2 else 0.0,
            not_before=self.lab.at(delay * self.unit)
            if caps.delay and delay and not self.count % 2
            else None,
        )

    @rule(names=queues, limit=st.integers(1, 6), lease=leases, by=who)
    def receive(self, names: list[str], limit: int, lease: float, by: int) -> None:
        self._keep(self._receive(by, names, limit, lease * self.unit))

    def _keep(self, found: Sequence[Delivery]) -> None:
        self.receipts += [each.receipt for each in found]

    def _receipt(self, place: int) -> str:
        receipt = self.receipts[-1 - place % len(self.receipts)]
        note(
            f"  # {place} is a receipt of {self.model.receipts[receipt] or 'what was settled or lost since'}"
        )
        return receipt

    def _receive(self, by: int, names: Sequence[str], limit: int, lease: float) -> Sequence[Delivery]:
        client = self.clients[by]
        found = client.receive(names, limit=limit, lease=lease)
        # What was due when a call that waits began is not all that its end may hold.
        self.model.received(names, limit, lease, found, client.when)
        return found

    @rule(names=queues, lease=leases, turns=st.integers(0, 5), limit=st.integers(1, 4), by=who)
    def receive_cancelled(self, names: list[str], lease: float, turns: int, limit: int, by: int) -> None:
        seconds = min(lease, 2.5) * self.unit
        broker = self.clients[by].broker

        async def work() -> Sequence[Delivery] | None:
            task = asyncio.ensure_future(broker.receive(names, limit=limit, lease=seconds, wait=5.0))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            try:
                return await task
            except asyncio.CancelledError:
                return None

        found, when = self.lab.driver.timed(work())
        if found is None:
            self.model.cancelled(names, seconds, when)
        else:
            self.model.received(names, limit, seconds, found, when)

    # settle and extend

    @rule(batch=st.lists(st.tuples(places, actions), min_size=1, max_size=4), by=who)
    def settle(self, batch: list[tuple[int, Action]], by: int) -> None:
        if self.receipts:
            self._settle(by, [Settlement(self._receipt(place), self._scaled(how)) for place, how in batch])

    def _settle(self, by: int, settlements: Sequence[Settlement]) -> list[bool]:
        client = self.clients[by]
        answers = client.settle(*settlements)
        self.model.settled(settlements, answers, client.when)
        return answers

    def _scaled(self, action: Action) -> Action:
        if isinstance(action, Retry | Release):
            return type(action)(action.delay * self.unit)
        return action

    @rule(batch=st.lists(places, min_size=1, max_size=3), lease=leases, by=who)
    def extend(self, batch: list[int], lease: float, by: int) -> None:
        if self.receipts:
            self._extend(by, [self._receipt(place) for place in batch], lease * self.unit)

    def _extend(self, by: int, batch: list[str], lease: float) -> None:
        client = self.clients[by]
        self.model.extended(batch, lease, client.extend(batch, lease), client.when)

    # time

    @rule(seconds=st.sampled_from((0.1, 0.5, 1.1, 3.0)))
    def advance(self, seconds: float) -> None:
        self.lab.advance(seconds * self.unit if self.exact else min(seconds, 0.5) * self.unit)

    @rule(place=places, action=actions, extend=st.booleans(), first=who, other=who)
    def zombie(self, place: int, action: Action, extend: bool, first: int, other: int) -> None:
        """Use a receipt after its message was delivered again."""
        if not self.receipts:
            return
        receipt = self._receipt(place)
        held = self.model.receipts.get(receipt)
        if held is None or held.lease > 3 * self.unit:
            return
        self.lab.advance(held.due.hi + self.lab.pace.slack - self.lab.driver.time.now() + 0.01)
        fresh: list[Delivery] = []
        while held.receipt in {receipt, None} and held.place in {"leased", "waiting"}:
            found = self._receive(first, [held.message.queue], 6, LONG)
            fresh += found
            if not found:
                break
        if extend:
            self._extend(other, [receipt], LONG)
        else:
            self._settle(other, [Settlement(receipt, self._scaled(action))])
        self._keep(fresh)

    @precondition(lambda self: self.exact)
    @rule(pick=st.integers(0, 20), lease=leases, by=who)
    def edge(self, pick: int, lease: float, by: int) -> None:
        """Ask just before and just after a deadline."""
        now = self.lab.driver.time.now()
        ahead = [due for due in self.model.deadlines() if due.lo > now + 0.02]
        ahead = [due for due in ahead if due.lo < now + 50 * self.unit]
        if not ahead:
            return
        due = ahead[pick % len(ahead)]
        self.lab.advance(due.lo - 0.01 - now)
        found = [*self._receive(by, QUEUES, 50, lease * self.unit)]
        self.lab.advance(0.02 + self.lab.pace.slack)
        found += self._receive(1 - by, QUEUES, 50, lease * self.unit)
        self._keep(found)

    # operate

    @rule(by=who)
    def restart(self, by: int) -> None:
        """A worker's process ends and another starts; what it had leased is nobody's."""
        self.lab.driver.run(self.clients[by].broker.close())
        self.clients[by] = self.lab.client()

    @rule(name=queue, by=who)
    def stats(self, name: str, by: int) -> None:
        client = self.clients[by]
        self.model.counted(name, client.stats(name), client.when)

    @rule(name=queue, by=who)
    def purge(self, name: str, by: int) -> None:
        if not self._free([name]):
            client = self.clients[by]
            self.model.purged(name, client.purge(name), client.when)

    @precondition(lambda self: self.lab.caps.withdraw)
    @rule(picks=st.lists(st.integers(0, 30), min_size=1, max_size=3), by=who)
    def withdraw(self, picks: list[int], by: int) -> None:
        known = sorted({held.message.id for held in self.model.held.values()})
        ids = list({known[pick % len(known)]: None for pick in picks}) if known else ["unknown"]
        if not any(held.message.id in ids for held in self._free(QUEUES)):
            client = self.clients[by]
            self.model.withdrawn(ids, client.withdraw(*ids), client.when)

    def _free(self, names: Sequence[str]) -> list[Held]:
        """What the broker may count as ready or as leased, about now."""
        now = self.lab.now()
        soon = Span(now.lo, now.hi + (0.0 if self.exact else 0.5))
        return [held for held in self.model.of(names) if self.model.unsettled(held, soon)]

    # dead letters

    @precondition(lambda self: self.lab.caps.dead_letters)
    @rule(name=queue, reason=st.sampled_from((None, *REASONS)), limit=st.integers(1, 3), by=who)
    def dead_list(self, name: str, reason: str | None, limit: int, by: int) -> None:
        self._dead_list(by, name, reason, limit)

    def _dead_list(self, by: int, name: str, reason: str | None, limit: int) -> None:
        client = self.clients[by]
        listed: list[DeadMessage] = []
        cursor: str | None = None
        while True:
            page = client.dead_list(name, reason=reason, limit=limit, cursor=cursor)
            check(len(page.items) <= limit, 12, f"dead_list(limit={limit}) gave {len(page.items)}")
            listed += page.items
            if (cursor := page.cursor) is None:
                break
        wanted = {
            (held.message.id, held.message.sealed, held.reason, held.detail, held.generation, held.attempt)
            for held in self.model.dead(name, reason=reason)
        }
        found = [
            (each.message.id, each.message.sealed, each.reason, each.detail, each.generation, each.attempt)
            for each in listed
        ]
        check(len(found) == len(wanted) and set(found) == wanted, 12,
              f"dead_list({name!r}, reason={reason!r}) gave {found}, expected {sorted(wanted)}")  # fmt: skip
        check(listed == sorted(listed, key=lambda each: each.dead_at), 12, "dead_list is not oldest first")

    @precondition(lambda self: self.lab.caps.dead_letters)
    @rule(
        name=queue,
        reason=st.sampled_from((None, *REASONS)),
        limit=st.one_of(st.none(), st.integers(1, 2)),
        dry=st.booleans(),
        by=who,
    )
    def dead_replay(self, name: str, reason: str | None, limit: int | None, dry: bool, by: int) -> None:
        client = self.clients[by]
        matching = self.model.dead(name, reason=reason)
        answer = client.dead_replay(name, reason=reason, limit=limit, dry_run=dry)
        self.model.replayed(matching, limit, answer, client.when, dry_run=dry)

    @precondition(lambda self: self.lab.caps.dead_letters)
    @rule(name=queue, reason=st.sampled_from((None, *REASONS)), keep=st.integers(0, 1), by=who)
    def dead_purge(self, name: str, reason: str | None, keep: int, by: int) -> None:
        client = self.clients[by]
        matching = self.model.dead(name, reason=reason)
        count = client.dead_purge(name, reason=reason, keep=keep)
        wanted = max(0, len(matching) - keep)
        check(count == wanted, 12, f"dead_purge removed {count} of {len(matching)}, keeping {keep}")
        left = {each.message.id for each in client.dead_list(name, reason=reason).items}
        gone = [held.message.id for held in matching if held.message.id not in left]
        check(len(gone) == wanted, 12, f"dead_purge says {count} and {len(gone)} are gone")
        self.model.dead_purged(matching, gone, client.when)

    # at rest

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None and self.clients:
                self._at_rest()
        finally:
            self.lab.driver.close()

    def _at_rest(self) -> None:
        """Law 11: everything is where the model says, and what can be delivered is."""
        client = self.clients[0]
        for name in QUEUES:
            self.model.counted(name, client.stats(name), client.when)
            if self.lab.caps.dead_letters:
                self._dead_list(0, name, None, 100)
        if self.exact:
            last = max(
                (due.hi for due in self.model.deadlines() if due.hi < self.model_horizon()), default=0.0
            )
            ghosts = max((held.ghost_until for held in self.model.held.values()), default=0.0)
            self.lab.advance(max(last, ghosts) + 0.01 + self.lab.pace.slack - self.lab.driver.time.now())
        while self._receive(0, QUEUES, 20, LONG * self.unit):
            pass
        for name in QUEUES:
            self.model.counted(name, client.stats(name), client.when)

    def model_horizon(self) -> float:
        """Further leases outlive the example."""
        return self.lab.driver.time.now() + 2 * LONG * self.unit


def broker_machine(make: Callable[[], BrokerLab]) -> type[RuleBasedStateMachine]:
    """What ``run_state_machine_as_test`` runs; each example makes a lab."""

    class Machine(BrokerMachine):
        def __init__(self) -> None:
            super().__init__(make)

    return Machine
