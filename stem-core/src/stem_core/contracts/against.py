"""One random history on two brokers: where do they first differ?

Each step takes and tells everything there is, sorted, so that order and partial batches do not count. Between
the end of a lease and the next delivery of its message either answer is legal (law 5), and it may count as ready
or as leased (law 11): such a settle, extend or purge is left out, and stats are told with the two added up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import hypothesis.strategies as st
from hypothesis import Phase, given, seed, settings

from stem_core.contracts.broker.lab import BrokerLab, Client
from stem_core.contracts.pace import LONG
from stem_core.envelope import Ack, Action, DeadLetter, Message, Release, Retry, Settlement

__all__ = ["Divergence", "first_divergence"]

Step = tuple[Any, ...]
queues = st.sampled_from(("a", "b"))
actions = st.sampled_from((Ack(), Retry(), Retry(5.0), Release(), DeadLetter("rejected")))
steps = st.one_of(
    st.tuples(
        st.just("publish"), queues, st.integers(0, 3), st.sampled_from((0.0, 0.0, 5.0)), st.integers(0, 9)
    ),
    st.tuples(st.just("receive"), queues, st.sampled_from((10.0, LONG))),
    st.tuples(st.just("settle"), st.integers(0, 5), actions),
    st.tuples(st.just("extend"), st.integers(0, 5), st.sampled_from((10.0, LONG))),
    st.tuples(st.just("advance"), st.sampled_from((3.0, 12.0))),
    st.tuples(st.just("stats"), queues),
    st.tuples(st.just("purge"), queues),
    st.tuples(st.just("replay"), queues),
)

histories = st.lists(steps, min_size=15, max_size=40)


class Divergence(AssertionError):
    """Two brokers answered one history differently. ``history`` ends with the step that shows it."""

    def __init__(self, history: list[Step], one: object, other: object) -> None:
        super().__init__(history, one, other)
        self.history, self.one, self.other = history, one, other

    def __str__(self) -> str:
        told = "\n".join(f"  {number}. {step}" for number, step in enumerate(self.history, 1))
        return f"{told}\n  one:   {self.one}\n  other: {self.other}"


class _Player:
    """Plays a history on one broker."""

    def __init__(self, lab: BrokerLab, *, delay: bool, levels: int, dead: bool) -> None:
        self.lab, self.delay, self.levels, self.dead = lab, delay, levels, dead
        self.client: Client = lab.client()
        self.receipts: list[str] = []
        self.leases: dict[tuple[str, str], tuple[str, float]] = {}
        """The current hand-out of each message that has one: its receipt, and when its lease ends."""

    def play(self, step: Step) -> object:
        match step:
            case ("publish", queue, number, delay, level):
                message = Message(
                    id=f"m{number}",
                    queue=queue,
                    sealed=b"m%d" % number,
                    once=True,
                    delay=delay if self.delay else 0.0,
                    priority=level * self.levels // 10,
                )
                return self.client.publish(message)
            case ("receive", queue, lease):
                found = sorted(self.client.drain(queue, lease=lease), key=lambda each: each.message.id)
                self.receipts += [each.receipt for each in found]
                for each in found:
                    self.leases[queue, each.message.id] = (each.receipt, self._now() + lease)
                return [
                    (d.message.id, d.message.sealed, d.generation, d.attempt, d.deliveries) for d in found
                ]
            case ("settle", place, action) if self.receipts:
                return self._settle(self._receipt(place), self._known(action))
            case ("extend", place, lease) if self.receipts:
                return self._extend(self._receipt(place), lease)
            case ("advance", seconds) if self.lab.pace.exact:
                self.lab.advance(seconds)
            case ("stats", queue):
                stats = self.client.stats(queue)
                counts = (stats.ready, stats.scheduled, stats.leased)
                if self._ended(queue):
                    counts = (stats.ready + stats.leased, stats.scheduled, 0)
                return (*counts, stats.dead if self.dead else None)
            case ("purge", queue) if not self._ended(queue):
                return self.client.purge(queue)
            case ("replay", queue) if self.dead:
                return sorted(self.client.dead_replay(queue))
        return None

    def _settle(self, receipt: str, action: Action) -> object:
        key = self._holder(receipt)
        if key is not None and self.leases[key][1] <= self._now():
            return None
        answer = self.client.settle(Settlement(receipt, action))
        if key is not None and answer == [True]:
            del self.leases[key]
        return answer

    def _extend(self, receipt: str, lease: float) -> object:
        key = self._holder(receipt)
        if key is not None and self.leases[key][1] <= self._now():
            return None
        answer = self.client.extend([receipt], lease)
        if key is not None and answer == [True]:
            self.leases[key] = (receipt, self._now() + lease)
        return answer

    def _holder(self, receipt: str) -> tuple[str, str] | None:
        """The message whose current hand-out ``receipt`` is; None when it is stale."""
        return next((key for key, (current, _) in self.leases.items() if current == receipt), None)

    def _ended(self, queue: str) -> bool:
        """Whether ``queue`` has a message whose lease ended and that was not delivered again."""
        now = self._now()
        return any(key[0] == queue and until <= now for key, (_, until) in self.leases.items())

    def _now(self) -> float:
        return self.lab.driver.time.now()

    def _receipt(self, place: int) -> str:
        """Counted from the newest."""
        return self.receipts[-1 - place % len(self.receipts)]

    def _known(self, action: Action) -> Action:
        return Ack() if isinstance(action, DeadLetter) and not self.dead else action


def first_divergence(
    one: Callable[[], BrokerLab], other: Callable[[], BrokerLab], *, examples: int, number: int
) -> Divergence | None:
    """Play up to ``examples`` histories from seed ``number`` on both; the shortest one that differs.

    Each maker opens a lab in a namespace of its own; what either lacks (delays, levels) is left out.
    """

    def play(history: list[Step]) -> Divergence | None:
        labs = [one(), other()]
        try:
            return _play(labs, history)
        finally:
            for lab in labs:
                lab.driver.close()

    @seed(number)
    @settings(max_examples=examples, deadline=None, database=None, print_blob=False, phases=(Phase.generate,))
    @given(histories)
    def agree(history: list[Step]) -> None:
        found = play(history)
        if found is not None:
            raise found

    try:
        agree()
    except Divergence as found:
        return _shortest(found, play)
    return None


def _play(labs: Sequence[BrokerLab], history: list[Step]) -> Divergence | None:
    caps = [lab.caps for lab in labs]
    exact = all(lab.pace.exact for lab in labs)
    players = [
        _Player(
            lab,
            delay=exact and all(each.delay for each in caps),
            levels=min(each.priority_levels for each in caps),
            dead=all(each.dead_letters for each in caps),
        )
        for lab in labs
    ]
    for place, step in enumerate(history):
        if step[0] == "advance" and not exact:
            continue
        answers = [player.play(step) for player in players]
        if answers[0] != answers[1]:
            return Divergence(history[: place + 1], *answers)
    return None


def _shortest(found: Divergence, play: Callable[[list[Step]], Divergence | None]) -> Divergence:
    """Leave out step after step while they still differ."""
    place = 0
    while place < len(found.history):
        shorter = play(found.history[:place] + found.history[place + 1 :])
        if shorter is None:
            place += 1
        else:
            found = shorter
    return found
