"""Laws 4 to 8: leases, fencing, extension, counts, and never early."""

from __future__ import annotations

from typing import Any

import pytest

from stem_core.contracts.broker.base import BrokerBase
from stem_core.contracts.broker.lab import BrokerLab, Client
from stem_core.contracts.driver import unique
from stem_core.contracts.laws import check
from stem_core.contracts.pace import LONG
from stem_core.contracts.punctual import punctual
from stem_core.envelope import Ack, Action, DeadLetter, Delivery, Release, Retry, Settlement

__all__ = ["LeaseLaws"]

ACTIONS = {
    "ack": Ack(),
    "retry": Retry(),
    "release": Release(),
    "dead-letter": DeadLetter("rejected"),
    "extend": None,
}


class LeaseLaws(BrokerBase):
    @punctual
    def test_law_04_a_lease_excludes_everybody(self, lab: BrokerLab) -> None:
        one, other = lab.client(), lab.client()
        one.publish(lab.message())
        first = one.one(lab.queue, lease=lab.pace.lease)
        for client in (one, other):
            client.nothing(lab.queue, 4, "leased to somebody")
        lab.advance(lab.pace.lease * 0.5)
        other.nothing(lab.queue, 4, "half of its lease has passed")
        check(one.end(first), 5, "a live lease could not be settled")

    @punctual
    def test_law_04_an_ended_lease_makes_it_available_and_counts(self, lab: BrokerLab) -> None:
        client = lab.client()
        client.publish(lab.message())
        for deliveries in (1, 2, 3):
            if deliveries > 1:
                lab.outlive(lab.pace.lease)
            delivery = client.one(lab.queue, lease=lab.pace.lease)
            check(delivery.deliveries == deliveries and delivery.attempt == 0, 4,
                  f"hand-out {deliveries} says deliveries {delivery.deliveries}, attempt {delivery.attempt}")  # fmt: skip

    @punctual
    def test_law_04_every_receive_sets_its_own_lease(self, lab: BrokerLab) -> None:
        """A consumer's shorter lease steals nothing from one with a longer."""
        patient, hasty = lab.client(), lab.client()
        patient.publish(lab.message())
        long = patient.one(lab.queue, lease=10 * lab.pace.lease)
        patient.publish(lab.message())
        short = hasty.one(lab.queue, lease=lab.pace.lease)
        lab.outlive(lab.pace.lease)
        found = hasty.drain(lab.queue, lease=lab.pace.lease)
        check(_ids(found) == [short.message.id], 4, f"{short.message.id} ended, {long.message.id} did not, "
              f"{_ids(found)} came")  # fmt: skip
        check(patient.end(long), 4, "the longer lease was lost with the shorter one")

    @punctual
    def test_law_04_the_deadline_is_told(self, lab: BrokerLab) -> None:
        client = lab.client()
        client.publish(*lab.messages(2))
        for lease in (lab.pace.lease, LONG):
            delivery = client.one(lab.queue, lease=lease)
            due, until = client.when.plus(lease), delivery.lease_until
            check(until.tzinfo is not None, 4, f"lease_until {until} has no time zone")
            tolerance = lab.pace.slack + lab.pace.early + 0.001
            check(due.lo - tolerance <= until.timestamp() <= due.hi + tolerance, 4,
                  f"a lease of {lease} s from {client.when.lo} ends at {until.timestamp()}")  # fmt: skip

    @punctual
    def test_law_05_a_receipt_is_stale_after_redelivery(self, lab: BrokerLab) -> None:
        """The zombie: a worker that stalled, lost its lease, and comes back; to itself or to another."""
        one, other = lab.client(), lab.client()
        queues = {(action, taker): unique("q") for action in ACTIONS for taker in (one, other)}
        one.publish(*(lab.message(queue) for queue in queues.values()))
        leased = {queue: one.one(queue, lease=lab.pace.lease) for queue in queues.values()}
        lab.outlive(lab.pace.lease)
        for (action, taker), queue in queues.items():
            old, new = leased[queue], taker.one(queue, lease=LONG)
            check(new.receipt != old.receipt, 5, "two deliveries have one receipt")
            check(not _apply(one, old, ACTIONS[action]), 5, f"a stale {action} answered True")
            one.nothing(queue, 5, f"a stale {action} answered False")
            stats = one.stats(queue)
            check((stats.ready, stats.leased, stats.dead) == (0, 1, 0), 5, f"a stale {action} answered False and "
                  f"left {stats}")  # fmt: skip
            check(one.end(new, Retry()), 5, f"a stale {action} took the lease of the new delivery")
            after = one.one(queue)
            check(
                (after.attempt, after.deliveries) == (1, 1),
                5,
                f"a stale {action} changed the counts: {after}",
            )

    @pytest.mark.parametrize("first", [name for name in ACTIONS if name != "extend"])
    def test_law_05_a_receipt_settles_at_most_once(self, lab: BrokerLab, first: str) -> None:
        client = lab.client()
        client.publish(lab.message())
        delivery = client.one(lab.queue)
        check(_apply(client, delivery, ACTIONS[first]), 5, f"{first} of a live lease answered False")
        before = client.stats(lab.queue)
        for name, action in ACTIONS.items():
            check(not _apply(client, delivery, action), 5, f"{name} after {first} answered True")
        after = client.stats(lab.queue)
        counts = [(s.ready, s.scheduled, s.leased, s.dead) for s in (before, after)]
        check(counts[0] == counts[1], 5, f"what was settled was settled again: {before} became {after}")
        found = client.drain(lab.queue)
        check(len(found) == (1 if first in {"retry", "release"} else 0), 5, f"after {first} came {found}")

    def test_law_05_a_batch_may_repeat_a_receipt(self, lab: BrokerLab) -> None:
        client = lab.client()
        client.publish(*lab.messages(2))
        one, two = client.drain(lab.queue)
        answers = client.settle(
            Settlement(one.receipt, Retry()), Settlement(two.receipt, Ack()), Settlement(one.receipt, Retry())
        )
        check(sorted(answers) == [False, True, True], 5, f"one receipt twice in a batch answered {answers}")
        found = client.drain(lab.queue)
        check([(d.message.id, d.attempt) for d in found] == [(one.message.id, 1)], 5,
              f"one receipt twice in a batch left {found}")  # fmt: skip

    @punctual
    def test_law_05_stale_and_live_receipts_mix(self, lab: BrokerLab) -> None:
        client = lab.client()
        client.publish(*lab.messages(4))
        old = client.drain(lab.queue, lease=lab.pace.lease)
        lab.outlive(lab.pace.lease)
        new = client.drain(lab.queue)
        mixed = [each for pair in zip(old, new, strict=True) for each in pair]
        answers = client.settle(*(Settlement(each.receipt, Ack()) for each in mixed))
        check(answers == [False, True] * 4, 5, f"stale and live in turn answered {answers}")
        check(client.stats(lab.queue).leased == 0, 5, "live receipts beside stale ones were not settled")

    @punctual
    def test_law_05_after_the_lease_answer_and_effect_agree(self, lab: BrokerLab) -> None:
        client = lab.client()
        client.publish(lab.message())
        delivery = client.one(lab.queue, lease=lab.pace.lease)
        lab.outlive(lab.pace.lease)
        if client.end(delivery):
            client.nothing(lab.queue, 5, "a late ack answered True")
        else:
            again = client.one(lab.queue)
            check(
                again.deliveries == 2, 5, f"a late ack answered False, then deliveries is {again.deliveries}"
            )

    @punctual
    def test_law_06_extend_moves_the_deadline(self, lab: BrokerLab) -> None:
        client, lease = lab.client(), lab.pace.lease
        client.publish(lab.message())
        delivery = client.one(lab.queue, lease=lease)
        for _ in range(2):
            lab.advance(lease * 0.7)
            check(client.extend([delivery.receipt], lease) == [True], 6, "a live lease could not be extended")
        client.nothing(lab.queue, 6, "its worker extends")
        lab.advance(lease * 0.5)
        client.nothing(lab.queue, 6, "its worker extended half a lease ago")
        lab.outlive(lease * 0.5)
        again = client.one(lab.queue)
        check(
            (again.attempt, again.deliveries) == (0, 2), 6, f"extend changed more than the deadline: {again}"
        )
        check(client.extend([delivery.receipt], lease) == [False], 5, "a stale extend answered True")

    @punctual
    def test_law_06_the_deadline_is_now_and_the_lease(self, lab: BrokerLab) -> None:
        """Also when that is earlier: the worker asks for what it wants."""
        client = lab.client()
        client.publish(lab.message())
        delivery = client.one(lab.queue, lease=LONG)
        check(client.extend([delivery.receipt], lab.pace.lease) == [True], 6, "a live lease was not extended")
        lab.outlive(lab.pace.lease)
        check(
            client.one(lab.queue).deliveries == 2,
            6,
            "a deadline made earlier did not count as an ended lease",
        )

    @punctual
    def test_law_06_an_extended_lease_settles(self, lab: BrokerLab) -> None:
        client = lab.client()
        client.publish(*lab.messages(3))
        found = client.drain(lab.queue, lease=lab.pace.lease)
        receipts = [each.receipt for each in found]
        check(client.extend(receipts, LONG) == [True] * 3, 6, "live leases could not be extended")
        lab.outlive(lab.pace.lease)
        client.nothing(lab.queue, 6, "extended before the lease ended")
        check(client.settle(*(Settlement(r, Ack()) for r in receipts)) == [True] * 3, 6,
              "extended leases could not be settled with their receipts")  # fmt: skip

    @punctual
    def test_law_07_retry_counts_an_attempt(self, lab: BrokerLab) -> None:
        client = lab.client()
        client.publish(lab.message())
        for attempt in range(2):
            client.one(lab.queue, lease=lab.pace.lease)
            lab.outlive(lab.pace.lease)  # a hand-out that ends in a crash
            delivery = client.one(lab.queue)
            check((delivery.generation, delivery.attempt, delivery.deliveries) == (0, attempt, 2), 7,
                  f"attempt {attempt}, hand-out 2 says {delivery}")  # fmt: skip
            check(client.end(delivery, Retry()), 5, "a live lease could not be settled")

    @punctual
    def test_law_07_release_refunds_the_hand_out(self, lab: BrokerLab) -> None:
        client = lab.client()
        client.publish(lab.message())
        client.end(client.one(lab.queue), Retry())
        client.one(lab.queue, lease=lab.pace.lease)
        lab.outlive(lab.pace.lease)
        for _ in range(3):
            delivery = client.one(lab.queue)
            check((delivery.attempt, delivery.deliveries) == (1, 2), 7,
                  f"released, and came with attempt {delivery.attempt}, deliveries {delivery.deliveries}")  # fmt: skip
            check(client.end(delivery, Release()), 5, "a live lease could not be settled")

    @punctual
    def test_law_07_nothing_comes_before_its_delay(self, lab: BrokerLab) -> None:
        client, delay = lab.client(), lab.pace.lease
        waiting: dict[type[Retry | Release], tuple[str, str]] = {}
        for kind in (Retry, Release):
            queue = unique("q")
            client.publish(*lab.messages(2, queue))
            one, two = client.drain(queue)
            check(client.settle(Settlement(one.receipt, kind(delay)), Settlement(two.receipt, kind(0.0)))
                  == [True, True], 5, "live leases could not be settled")  # fmt: skip
            at_once = _ids(client.drain(queue))
            check(at_once == [two.message.id], 7, f"{kind.__name__} with delays of {delay} and 0 s, and at once "
                  f"came {at_once}, expected {two.message.id}")  # fmt: skip
            waiting[kind] = queue, one.message.id
        lab.advance(delay * 0.6)
        for kind, (queue, _) in waiting.items():
            client.nothing(queue, 7, f"{kind.__name__}({delay}) is not over")
        lab.outlive(delay * 0.4)
        for kind, (queue, id) in waiting.items():
            found = _ids(client.drain(queue))
            check(found == [id], 7, f"{kind.__name__}({delay}) is over and {found} came, expected {id}")

    @pytest.mark.parametrize("how", ["delay", "not_before", "both"])
    @punctual
    def test_law_08_never_early_and_prompt_after(self, lab: BrokerLab, how: str) -> None:
        self.needs("delay")
        client, wait = lab.client(), lab.pace.lease
        fields: dict[str, Any] = {}
        if how != "not_before":
            fields["delay"] = wait if how == "delay" else wait * 0.3
        if how != "delay":
            fields["not_before"] = lab.at(wait)
        late, now = lab.message(**fields), lab.message()
        client.publish(late, now)
        start = client.when
        check(_ids(client.drain(lab.queue)) == [now.id], 8, f"{how} of {wait} s: it came at once")
        check(client.stats(lab.queue).scheduled == 1, 11, "a delayed message is not counted as scheduled")
        lab.advance(start.lo + wait * 0.7 - lab.driver.time.now())
        client.nothing(lab.queue, 8, f"{how} of {wait} s, after {wait * 0.7}")
        lab.advance(start.hi + wait + lab.pace.slack + 0.01 - lab.driver.time.now())
        found = client.drain(lab.queue)
        check(_ids(found) == [late.id], 8, f"{how} of {wait} s is over and {_ids(found)} came")
        check((found[0].attempt, found[0].deliveries) == (0, 1), 8, f"a first delivery says {found[0]}")

    @pytest.mark.parametrize("action", [Retry, Release])
    def test_law_07_not_a_moment_early(self, lab: BrokerLab, action: type[Retry | Release]) -> None:
        client, wait = lab.client(), lab.pace.lease
        client.publish(lab.message())
        client.end(client.one(lab.queue), action(wait))
        _not_a_moment_early(lab, client, wait, 7, action.__name__)

    @pytest.mark.parametrize("how", ["delay", "not_before"])
    def test_law_08_not_a_moment_early(self, lab: BrokerLab, how: str) -> None:
        self.needs("delay")
        client, wait = lab.client(), lab.pace.lease
        fields: dict[str, Any] = {"delay": wait} if how == "delay" else {"not_before": lab.at(wait)}
        client.publish(lab.message(**fields))
        _not_a_moment_early(lab, client, wait, 8, how)

    def test_law_08_the_past_is_now(self, lab: BrokerLab) -> None:
        self.needs("delay")
        client = lab.client()
        client.publish(lab.message(not_before=lab.at(-3600.0)))
        client.one(lab.queue)

    @punctual
    def test_law_08_due_messages_come_each_at_its_time(self, lab: BrokerLab) -> None:
        self.needs("delay")
        client, unit = lab.client(), lab.pace.slack + lab.pace.lateness + 0.03
        sent = [lab.message(delay=unit * each) for each in (3, 1, 2)]
        client.publish(*sent)
        start = client.when
        for number, place in ((1, 1), (2, 2), (3, 0)):
            lab.advance(start.hi + unit * number + lab.pace.slack + 0.01 - lab.driver.time.now())
            found = client.drain(lab.queue)
            check(_ids(found) == [sent[place].id], 8, f"after {number} units came {_ids(found)}")


def _ids(deliveries: list[Delivery]) -> list[str]:
    return sorted(each.message.id for each in deliveries)


def _not_a_moment_early(lab: BrokerLab, client: Client, wait: float, law: int, what: str) -> None:
    """Just before it is due nothing comes. Only where time is injected: real time is not to be had so fine."""
    if not lab.pace.exact:
        pytest.skip("needs a clock that tests can move")
    due = client.when.lo + wait
    lab.advance(due - 0.01 - lab.driver.time.now())
    client.nothing(lab.queue, law, f"{what} of {wait} s, 0.01 s before it is due")
    lab.advance(0.02 + lab.pace.slack)
    client.one(lab.queue)


def _apply(client: Client, delivery: Delivery, action: Action | None) -> bool:
    if action is None:
        return client.extend([delivery.receipt], LONG)[0]
    return client.end(delivery, action)
