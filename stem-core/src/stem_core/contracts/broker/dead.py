"""Law 12: dead letters keep everything, and replay is exact."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from stem_core.clock import instant
from stem_core.contracts.broker.base import BrokerBase
from stem_core.contracts.broker.lab import BrokerLab
from stem_core.contracts.driver import unique
from stem_core.contracts.laws import check, expect
from stem_core.contracts.pace import LONG
from stem_core.contracts.punctual import punctual
from stem_core.envelope import DeadLetter, DeadMessage, Release, Retry

__all__ = ["DeadLetterLaws"]


class DeadLetterLaws(BrokerBase):
    def test_law_12_a_dead_letter_keeps_everything(self, lab: BrokerLab) -> None:
        self.needs("dead_letters")
        client = lab.client()
        levels = self.spec.capabilities.priority_levels
        message = lab.message(sealed=bytes(range(256)), once=True, priority=levels - 1)
        client.publish(message)
        client.end(client.one(lab.queue), Retry())
        detail = "why\n\t'\"\\ \U0001f600 " + "x" * 2000
        client.end(client.one(lab.queue), DeadLetter("max-retries-exhausted", detail))
        died = client.when
        check(not client.receive(lab.queue), 12, "a dead letter was delivered")
        dead = _only(client.dead_list(lab.queue).items)
        for name in ("id", "sealed", "queue", "priority"):
            expect(getattr(dead.message, name), getattr(message, name), 12, f"{name} of a dead letter")
        expect(dead.reason, "max-retries-exhausted", 12, "reason of a dead letter")
        expect(dead.detail, detail, 12, "detail of a dead letter")
        expect((dead.generation, dead.attempt), (0, 1), 12,
               "generation and attempt of a message that was retried once and then dead-lettered")  # fmt: skip
        check(dead.dead_at.tzinfo is not None, 12, f"dead_at {dead.dead_at} has no time zone")
        tolerance = lab.pace.slack + lab.pace.early + 0.001
        check(died.lo - tolerance <= dead.dead_at.timestamp() <= died.hi + tolerance, 12,
              f"dead_at: expected {instant(died.lo)} to {instant(died.hi)}, got {dead.dead_at}")  # fmt: skip

    @punctual
    def test_law_12_replay_is_exactly_one_message(self, lab: BrokerLab) -> None:
        self.needs("dead_letters")
        client = lab.client()
        message = lab.message(sealed=b"\0same")
        client.publish(message)
        client.end(client.one(lab.queue), Retry())
        client.one(lab.queue, lease=lab.pace.lease)
        lab.outlive(lab.pace.lease)
        for generation in (1, 2):
            client.end(client.one(lab.queue), DeadLetter("rejected"))
            wanted = [(message.id, generation)]
            dry = client.dead_replay(lab.queue, dry_run=True)
            expect(
                dry, wanted, 12, f"replay {generation} of one dead letter with dry_run, ids and generations"
            )
            client.nothing(lab.queue, 12, "dead_replay was called with dry_run only")
            expect(client.dead_replay(lab.queue), wanted, 12, f"replay {generation}, ids and generations")
            expect(client.dead_replay(lab.queue), [], 12, "a second replay of the same dead letter")
            left = [each.message.id for each in client.dead_list(lab.queue).items]
            expect(left, [], 12, "dead letters listed after their replay")
            delivery = client.one(lab.queue, lease=LONG)
            client.nothing(lab.queue, 12, "one dead letter was replayed once, and its one message is leased")
            expect(delivery.message.sealed, message.sealed, 12, "sealed bytes after a replay")
            expect((delivery.generation, delivery.attempt, delivery.deliveries), (generation, 0, 1), 12,
                   f"generation, attempt and deliveries of the first delivery after replay {generation}")  # fmt: skip
            client.end(delivery, Release())

    @punctual
    def test_law_12_a_replayed_message_forgets_its_delay(self, lab: BrokerLab) -> None:
        self.needs("dead_letters")
        self.needs("delay")
        client = lab.client()
        client.publish(lab.message(delay=lab.pace.lease))
        lab.outlive(lab.pace.lease)
        client.bury(lab.queue)
        client.dead_replay(lab.queue)
        client.one(lab.queue)

    @punctual
    def test_law_12_filters_match_exactly(self, lab: BrokerLab) -> None:
        self.needs("dead_letters")
        client = lab.client()
        ids: dict[str, str] = {}
        middles: list[datetime] = []
        for reason in ("rejected", "crash-loop"):
            for _ in range(3):
                message = lab.message()
                client.publish(message)
                client.bury(lab.queue, reason)
                ids[message.id] = reason
            lab.advance(lab.pace.lease)
            middles.append(lab.at(-lab.pace.lease / 2))
        middle, elsewhere = middles[0], unique("q")
        client.publish(lab.message(elsewhere))
        client.bury(elsewhere)
        rejected = [id for id, reason in ids.items() if reason == "rejected"]
        picked = [*list(ids)[1:5], "unknown"]
        cases: list[tuple[dict[str, Any], list[str]]] = [
            ({}, list(ids)),
            ({"reason": "rejected"}, rejected),
            ({"reason": "reject"}, []),
            ({"ids": picked}, picked[:-1]),
            ({"ids": []}, []),
            ({"before": middle}, rejected),
            ({"ids": picked, "reason": "rejected"}, picked[:2]),
            ({"before": middle, "reason": "crash-loop"}, []),
        ]
        for filters, wanted in cases:
            listed = [each.message.id for each in client.dead_list(lab.queue, **filters).items]
            expect(listed, wanted, 12, f"dead_list with {filters}, oldest first")
            dry = [id for id, _ in client.dead_replay(lab.queue, dry_run=True, **filters)]
            expect(sorted(dry), sorted(wanted), 12, f"dead_replay(dry_run=True) with {filters}")
        replayed = [id for id, _ in client.dead_replay(lab.queue, ids=picked, reason="rejected")]
        expect(replayed, picked[:2], 12, f"dead_replay with ids={picked} and reason='rejected'")
        expect(client.dead_purge(lab.queue, reason="rejected"), 1, 12,
               "dead_purge(reason='rejected') of 1 such and 3 other dead letters")  # fmt: skip
        left = [each.message.id for each in client.dead_list(lab.queue).items]
        wanted = [id for id, reason in ids.items() if reason == "crash-loop"]
        expect(left, wanted, 12, "dead letters left after all of reason 'rejected' were purged")
        check(len(client.dead_list(elsewhere).items) == 1, 10, "another queue's dead letter is gone")

    def test_law_12_pages_hold_each_once(self, lab: BrokerLab) -> None:
        self.needs("dead_letters")
        client = lab.client()
        client.publish(*lab.messages(11))
        client.bury(lab.queue)  # all within one moment: a cursor of time alone would lose some
        everything = [each.message.id for each in client.dead_list(lab.queue).items]
        found, cursor = [], None
        while True:
            page = client.dead_list(lab.queue, limit=4, cursor=cursor)
            check(len(page.items) <= 4, 12, f"dead_list(limit=4) gave {len(page.items)}")
            found += [each.message.id for each in page.items]
            if (cursor := page.cursor) is None:
                break
        expect(len(set(everything)), 11, 12, "different ids in the list of 11 dead letters, of one moment")
        expect(found, everything, 12, "11 dead letters of one moment in pages of 4, against the whole list")

    @punctual
    def test_law_12_purge_keeps_the_newest(self, lab: BrokerLab) -> None:
        self.needs("dead_letters")
        client = lab.client()
        sent = lab.messages(6)
        for message in sent:
            client.publish(message)
            client.bury(lab.queue)
            lab.advance(0.01 if not lab.pace.exact else lab.pace.lease)
        expect(client.dead_purge(lab.queue, keep=4, limit=1), 1, 12, "dead_purge(keep=4, limit=1) of 6")
        expect(client.dead_purge(lab.queue, keep=4), 1, 12, "dead_purge(keep=4) of 5")
        left = [each.message.id for each in client.dead_list(lab.queue).items]
        expect(
            left,
            [each.id for each in sent[2:]],
            12,
            "dead letters left after dead_purge(keep=4), the newest four",
        )
        expect(client.dead_purge(lab.queue), 4, 12, "dead_purge of 4")
        expect(client.stats(lab.queue).dead, 0, 11, "dead in stats after all dead letters were purged")

    def test_law_12_without_it_a_dead_letter_is_forgotten(self, lab: BrokerLab) -> None:
        if self.spec.capabilities.dead_letters:
            return  # the other laws say what happens
        client = lab.client()
        client.publish(lab.message())
        check(
            client.end(client.one(lab.queue), DeadLetter("rejected")),
            12,
            "DeadLetter of a live lease was refused",
        )
        client.nothing(lab.queue, 12, "the one message was dead-lettered")


def _only(items: tuple[DeadMessage, ...]) -> DeadMessage:
    check(len(items) == 1, 12, f"one message was dead-lettered, {len(items)} are listed")
    return items[0]
