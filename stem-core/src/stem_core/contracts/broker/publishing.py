"""Laws 1, 2, 3, 10 and 11: what is published is there, once, unchanged, apart, and counted."""

from __future__ import annotations

import asyncio

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from stem_core.contracts.broker.base import BrokerBase
from stem_core.contracts.broker.lab import BrokerLab, Client
from stem_core.contracts.driver import unique
from stem_core.contracts.laws import check
from stem_core.contracts.punctual import punctual
from stem_core.envelope import Ack, DeadLetter, Delivery, Release, Retry
from stem_core.errors import PayloadTooLarge

__all__ = ["PublishingLaws"]

#: Pairs of names that a careless key, pattern, collation or normalisation takes for one.
CONFUSABLE = (
    ("a", "A"),
    ("a", "a "),
    ("a", "a:b"),
    ("a", "a:dead"),
    ("a_b", "axb"),
    ("a%", "ab"),
    ("a*", "ab"),
    ("a?", "ab"),
    ("[ab]", "a"),
    ("{a}", "a"),
    ("\u00e9", "e\u0301"),  # composed and decomposed
    ("ß", "ss"),
    ("a.b", "a/b"),
    ("a'b", 'a"b'),
    ("\\a", "a"),
    ("q", "q\U0001f600"),
    ("n" * 128, "n" * 127 + "m"),
)
names = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=128)


class PublishingLaws(BrokerBase):
    @punctual
    def test_law_01_published_is_delivered_until_it_is_settled(self, lab: BrokerLab) -> None:
        keeper, sent = lab.client(), lab.messages(5)
        check(keeper.publish(*sent) == [True] * 5, 1, "a new message was answered False")
        worker = lab.client()
        found = worker.drain(lab.queue, lease=lab.pace.lease)
        check(_ids(found) == sorted(each.id for each in sent), 1, f"5 published, {_ids(found)} came")
        lab.driver.run(worker.broker.close())  # it dies with what it has
        lab.outlive(lab.pace.lease)
        last = keeper.drain(lab.queue, lease=lab.pace.lease)
        check(
            _ids(last) == sorted(each.id for each in sent),
            1,
            f"5 leased by who died, {_ids(last)} came again",
        )
        for delivery in last:
            keeper.end(delivery)
        lab.outlive(lab.pace.lease)
        keeper.nothing(lab.queue, 1, "everything was acked")

    def test_law_01_retry_and_release_keep_the_message(self, lab: BrokerLab) -> None:
        client = lab.client()
        client.publish(lab.message())
        short = lab.pace.lease / 4
        for action in (Retry(), Release(), Retry(short), Release(short)):
            check(client.end(client.one(lab.queue), action), 5, "a live lease could not be settled")
            lab.outlive(action.delay)
        client.one(lab.queue)

    def test_law_01_publishing_nothing_is_fine(self, lab: BrokerLab) -> None:
        client = lab.client()
        check(client.publish() == [], 1, "publish([]) answered something")
        check(client.settle() == [], 5, "settle([]) answered something")
        check(client.extend([], 10.0) == [], 6, "extend([]) answered something")

    @punctual
    def test_law_01_a_publish_outlives_its_publisher(self, lab: BrokerLab) -> None:
        keeper, publisher = lab.client(), lab.client()
        publisher.publish(lab.message())
        lab.driver.run(publisher.broker.close())
        keeper.one(lab.queue)

    def test_law_01_what_is_refused_is_not_stored(self, lab: BrokerLab) -> None:
        """A batch with one message that cannot be stored stores none of it."""
        limit = self.spec.capabilities.max_size
        if limit is None:
            pytest.skip("not declared: max_size")
        client = lab.client()
        with pytest.raises(PayloadTooLarge):
            client.publish(lab.message(), lab.message(sealed=bytes(limit + 1)), lab.message())
        client.nothing(lab.queue, 3, "a batch with a message over max_size was refused")
        check(client.stats(lab.queue).ready == 0, 3, "stats counts messages of a refused batch")

    @pytest.mark.parametrize(
        "state",
        ["ready", "scheduled", "leased", "retrying", "dead", "replayed", "acked", "withdrawn", "purged"],
    )
    @punctual
    def test_law_02_a_once_id_is_added_once(self, lab: BrokerLab, state: str) -> None:
        caps = self.spec.capabilities
        if state == "scheduled":
            self.needs("delay")
        if state in {"dead", "replayed"}:
            self.needs("dead_letters")
        if state == "withdrawn":
            self.needs("withdraw")
        client = lab.client()
        first = lab.message(once=True, delay=lab.pace.lease if state == "scheduled" else 0.0)
        check(client.publish(first) == [True], 2, "a new once id was answered False")
        match state:
            case "leased":
                client.one(lab.queue)
            case "retrying":
                client.end(client.one(lab.queue), Retry(lab.pace.lease))
            case "dead" | "replayed":
                client.bury(lab.queue)
                if state == "replayed":
                    client.dead_replay(lab.queue)
            case "acked":
                client.end(client.one(lab.queue))
            case "withdrawn":
                check(client.withdraw(first.id) == [True], 17, "a ready message was not withdrawn")
            case "purged":
                check(client.purge(lab.queue) == 1, 11, "one ready message was not purged")
        again = lab.message(id=first.id, once=True, sealed=b"other bytes")
        before = client.stats(lab.queue)
        check(lab.client().publish(again) == [False], 2, f"a once id that is {state} was answered True")
        after = client.stats(lab.queue)
        counts = ("ready", "scheduled", "leased", "dead")
        check([getattr(before, c) for c in counts] == [getattr(after, c) for c in counts], 2,
              f"a once id that is {state} was answered False, and stats went from {before} to {after}")  # fmt: skip
        if state in {"acked", "withdrawn", "purged"}:
            client.nothing(lab.queue, 2, f"a once id that was {state} was answered False")
        elif state in {"ready", "replayed"}:
            found = client.drain(lab.queue)
            check(len(found) == 1 and found[0].message.sealed == first.sealed, 2,
                  f"a second publish of a once id that is {state} left {found}")  # fmt: skip
        if state == "dead" and caps.dead_letters:
            check(client.dead_list(lab.queue).items[0].message.sealed == first.sealed, 2,
                  "a second publish replaced a dead letter")  # fmt: skip

    def test_law_02_a_batch_may_repeat_itself(self, lab: BrokerLab) -> None:
        client = lab.client()
        twice = lab.message(once=True)
        answers = client.publish(twice, lab.message(once=True), twice)
        check(sorted(answers) == [False, True, True], 2, f"one id twice in a batch answered {answers}")
        check(len(client.drain(lab.queue)) == 2, 2, "one id twice in a batch was not stored once")

    def test_law_02_the_scope_is_namespace_queue_and_id(self, lab: BrokerLab) -> None:
        client, other = lab.client(), lab.client(namespace=unique())
        message = lab.message(once=True)
        elsewhere = lab.message(unique("q"), id=message.id, once=True)
        check(client.publish(message) == [True], 2, "a new once id was answered False")
        check(client.publish(elsewhere) == [True], 2, "a once id is known in another queue")
        check(other.publish(message) == [True], 2, "a once id is known in another namespace")
        check(
            len(client.drain(lab.queue)) == len(other.drain(lab.queue)) == 1,
            2,
            "an answer of True added nothing",
        )

    def test_law_02_once_is_once_for_concurrent_publishers(self, lab: BrokerLab) -> None:
        clients = [lab.client() for _ in range(4)]
        sent = [lab.message(once=True) for _ in range(10)]

        async def race() -> list[bool]:
            answers = await asyncio.gather(*(each.broker.publish(sent) for each in clients))
            return [answer for row in answers for answer in row]

        answers = lab.driver.run(race())
        check(sum(answers) == 10, 2, f"4 publishers of the same 10 once ids: {sum(answers)} were told True")
        check(len(clients[0].drain(lab.queue)) == 10, 2, "4 publishers of the same 10 once ids left not 10")

    @punctual
    def test_law_02_ids_are_remembered_for_once_ttl_and_then_forgotten(self, lab: BrokerLab) -> None:
        self.needs("once_ttl")
        ttl = lab.driver.once_ttl = lab.pace.lease
        client = lab.client()
        message = lab.message(once=True)
        client.publish(message)
        client.end(client.one(lab.queue))
        lab.advance(ttl * 0.5)
        check(
            client.publish(message) == [False],
            2,
            f"a once id was forgotten before once_ttl ({ttl} s) was over",
        )
        lab.outlive(ttl)
        check(client.publish(message) == [True], 2, f"a once id is remembered after once_ttl ({ttl} s)")
        client.one(lab.queue)

    def test_law_03_any_bytes_come_back_identical(self, lab: BrokerLab) -> None:
        client = lab.client()

        @self.budget.property()
        @given(st.lists(st.binary(max_size=200), min_size=1, max_size=5))
        @example([b"", b"\0", bytes(range(256)), b"\xff\xfe", "ü\n".encode()])
        def law(contents: list[bytes]) -> None:
            queue = unique("q")
            sent = [lab.message(queue, sealed=content) for content in contents]
            client.publish(*sent)
            found = {each.message.id: each.message.sealed for each in client.drain(queue)}
            for message in sent:
                check(found.get(message.id) == message.sealed, 3, f"{message.sealed!r} came back as "
                      f"{found.get(message.id)!r}")  # fmt: skip

        law()

    def test_law_03_bytes_up_to_the_size_limit_come_back(self, lab: BrokerLab) -> None:
        limit = self.spec.capabilities.max_size
        client = lab.client()
        for size in sorted({0, 65_537, min(limit or 262_144, 262_144), min(limit or 0, 32 * 1024 * 1024)}):
            if limit is None or size <= limit:
                content = bytes(i & 255 for i in range(251)) * (size // 251 + 1)
                client.publish(lab.message(sealed=content[:size]))
                delivery = client.one(lab.queue)
                check(delivery.message.sealed == content[:size], 3, f"{size} bytes came back different")
                client.end(delivery)

    def test_law_03_bytes_survive_retry_and_release(self, lab: BrokerLab) -> None:
        client = lab.client()
        message = lab.message(sealed=bytes(range(256)), once=True)
        client.publish(message)
        for action in (Retry(), Ack()):
            delivery = client.one(lab.queue)
            check(delivery.message.id == message.id and delivery.message.sealed == message.sealed, 3,
                  f"came back as {delivery.message}")  # fmt: skip
            check(delivery.message.once, 3, "a once message came back without once")
            client.end(delivery, action)

    def test_law_10_queues_are_isolated(self, lab: BrokerLab) -> None:
        client = lab.client()
        for one, two in CONFUSABLE:
            mine, other = lab.message(one), lab.message(two)
            client.publish(mine, other)
            for name, message in ((one, mine), (two, other)):
                found = client.drain(name)
                check(
                    _ids(found) == [message.id], 10, f"queue {name!r} beside {two!r} and {one!r} gave {found}"
                )
                check(
                    found[0].message.queue == name,
                    10,
                    f"queue {name!r} came back as {found[0].message.queue!r}",
                )
                for delivery in found:
                    client.end(delivery)

    def test_law_10_a_queue_has_any_printable_name(self, lab: BrokerLab) -> None:
        client = lab.client()

        @self.budget.property(100)
        @given(names)
        @example("n" * 128)
        @example("\U0001f600" * 128)
        def law(name: str) -> None:
            message = lab.message(name)
            client.publish(message)
            found = client.drain(name)
            check(_ids(found) == [message.id], 10, f"queue {name!r} gave {found}")
            check(client.stats(name).leased == 1, 10, f"queue {name!r} counts {client.stats(name)}")
            client.end(found[0])

        law()

    def test_law_10_namespaces_are_isolated(self, lab: BrokerLab) -> None:
        mine, other = lab.client(), lab.client(namespace=lab.driver.namespace + "x")
        message = lab.message()
        mine.publish(message)
        other.nothing(lab.queue, 10, "published in another namespace")
        check(other.stats(lab.queue).ready == 0, 10, "stats counts another namespace's messages")
        check(other.purge(lab.queue) == 0, 10, "purge reached another namespace")
        if self.spec.capabilities.withdraw:
            check(other.withdraw(message.id) == [False], 10, "withdraw reached another namespace")
        delivery = mine.one(lab.queue)
        if self.spec.capabilities.dead_letters:
            check(mine.end(delivery, DeadLetter("rejected")), 5, "a live lease could not be settled")
            check(not other.dead_list(lab.queue).items, 10, "dead_list shows another namespace's")
            check(other.dead_purge(lab.queue) == 0, 10, "dead_purge reached another namespace")
            check(len(mine.dead_list(lab.queue).items) == 1, 10, "the dead letter is gone")

    @punctual
    def test_law_11_stats_count_what_is_there(self, lab: BrokerLab) -> None:
        client = lab.client()
        _counts(client, lab.queue, "at the start")
        client.publish(*lab.messages(6))
        _counts(client, lab.queue, "after 6 publishes", ready=6)
        leased = [client.one(lab.queue) for _ in range(5)]
        _counts(client, lab.queue, "with 5 leased", ready=1, leased=5)
        client.end(leased[0])
        client.end(leased[1], Retry(10 * lab.pace.lease))
        client.end(leased[2], Retry())
        _counts(client, lab.queue, "after ack, Retry(later), Retry()", ready=2, scheduled=1, leased=2)
        dead = int(self.spec.capabilities.dead_letters)
        client.end(leased[3], DeadLetter("rejected"))
        _counts(client, lab.queue, "after DeadLetter", ready=2, scheduled=1, leased=1, dead=dead)
        client.end(leased[0])
        _counts(client, lab.queue, "after a stale ack", ready=2, scheduled=1, leased=1, dead=dead)
        check(client.purge(lab.queue) == 3, 11, "purge did not take 2 ready and 1 scheduled")
        _counts(client, lab.queue, "after purge", leased=1, dead=dead)
        check(client.end(leased[4]), 11, "a leased message did not survive a purge")
        _counts(client, lab.queue, "at the end", dead=dead)

    @punctual
    def test_law_11_the_oldest_ready_message_has_an_age(self, lab: BrokerLab) -> None:
        client = lab.client()
        check(client.stats(lab.queue).oldest_ready_age is None, 11, "an empty queue has an oldest message")
        client.publish(lab.message())
        lab.advance(lab.pace.lease)
        client.publish(lab.message())
        age = client.stats(lab.queue).oldest_ready_age
        if age is None or age < lab.pace.lease - lab.pace.slack - lab.pace.early:
            check(False, 11, f"the oldest has been ready for {lab.pace.lease} s, stats says {age}")
        client.drain(lab.queue)
        check(
            client.stats(lab.queue).oldest_ready_age is None, 11, "nothing is ready and something has an age"
        )


def _ids(deliveries: list[Delivery]) -> list[str]:
    return sorted(each.message.id for each in deliveries)


def _counts(client: Client, queue: str, when: str, **expected: int) -> None:
    stats = client.stats(queue)
    wanted = {"ready": 0, "scheduled": 0, "leased": 0, "dead": 0, **expected}
    found = {name: getattr(stats, name) for name in wanted}
    check(found == wanted, 11, f"{when} stats says {found}, expected {wanted}")
