"""Law 13: many at once. Clients in threads with loops of their own where the adapter is ``multi_process``."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from itertools import combinations_with_replacement
from typing import Any, TypeVar

from stem_core.contracts.broker.base import BrokerBase
from stem_core.contracts.broker.lab import BrokerLab, Client
from stem_core.contracts.concurrently import in_rounds, together
from stem_core.contracts.driver import unique
from stem_core.contracts.laws import check
from stem_core.contracts.pace import LONG
from stem_core.contracts.punctual import punctual
from stem_core.envelope import Ack, Action, DeadLetter, Delivery, Release, Retry, Settlement
from stem_core.ports.broker import Broker

__all__ = ["ConcurrencyLaws"]

T = TypeVar("T")
CONSUMERS = 8
BATCH = 50
#: What can be done with a receipt; None extends its lease.
ENDS: dict[str, Action | None] = {
    "ack": Ack(),
    "retry": Retry(),
    "release": Release(),
    "dead": DeadLetter("rejected"),
    "extend": None,
}


class ConcurrencyLaws(BrokerBase):
    def at_once(self, lab: BrokerLab, *works: Callable[[Broker], Coroutine[Any, Any, T]]) -> list[T]:
        """Each work with a client of its own, at the same time."""
        threads = self.spec.capabilities.multi_process
        return together(partial(_opened, lab), works, threads=threads, run=lab.driver.run)

    def rounds(
        self, lab: BrokerLab, count: int, *works: Callable[[Broker, int], Coroutine[Any, Any, T]]
    ) -> list[list[T]]:
        """As :meth:`at_once`, ``count`` times over; the answers of each round."""
        threads = self.spec.capabilities.multi_process
        return in_rounds(partial(_opened, lab), works, count, threads=threads, run=lab.driver.run)

    def test_law_13_concurrent_publishes_lose_none(self, lab: BrokerLab) -> None:
        keeper = lab.client()
        batches = [lab.messages(25) for _ in range(CONSUMERS)]

        async def publish(broker: Broker, batch: Sequence[Any]) -> list[bool]:
            return list(await broker.publish(batch[:10])) + list(await broker.publish(batch[10:]))

        answers = self.at_once(lab, *((lambda b, batch=batch: publish(b, batch)) for batch in batches))
        check(all(map(all, answers)), 13, "a concurrent publish of new messages answered False")
        found = Counter(each.message.id for each in keeper.drain(lab.queue))
        sent = {message.id for batch in batches for message in batch}
        check(found == Counter(sent), 13, f"{len(sent)} published at once, {found.total()} came")

    def test_law_13_each_message_to_exactly_one_consumer(self, lab: BrokerLab) -> None:
        """8 consumers share thousands of messages over two queues: every one settled once, by who got it."""
        keeper = lab.client()
        queues = [unique("q"), unique("q")]
        total = self.budget.messages
        for start in range(0, total, 500):
            keeper.publish(
                *(lab.message(queues[n % 2], id=f"m{n}") for n in range(start, min(start + 500, total)))
            )
        done = itertools.count()
        finished = threading.Event()

        async def consume(broker: Broker) -> list[str]:
            mine: list[str] = []
            while not finished.is_set():
                found = await broker.receive(queues, limit=BATCH, lease=LONG, wait=0.05)
                await asyncio.sleep(0)  # an adapter that never waits would leave nothing to the others
                if not found:
                    continue
                answers = await broker.settle([Settlement(each.receipt, Ack()) for each in found])
                mine += [each.message.id for each, ok in zip(found, answers, strict=True) if ok]
                check(all(answers), 13, "a fresh receipt was stale: somebody else has the message")
                for _ in found:
                    if next(done) == total - 1:
                        finished.set()
            return mine

        async def give_up(_: Broker) -> list[str]:
            loop = asyncio.get_running_loop()
            until = loop.time() + 10 * self.prompt
            while not finished.is_set() and loop.time() < until:  # noqa: ASYNC110 (set from other loops)
                await asyncio.sleep(0.02)
            finished.set()
            return []

        taken = Counter(id for mine in self.at_once(lab, *[consume] * CONSUMERS, give_up) for id in mine)
        twice = [id for id, times in taken.items() if times > 1]
        check(not twice, 13, f"settled twice: {twice[:5]}")
        check(
            len(taken) == total, 13, f"{total} messages, {len(taken)} were settled by {CONSUMERS} consumers"
        )
        for queue in queues:
            stats = keeper.stats(queue)
            check(stats.ready + stats.leased + stats.scheduled + stats.dead == 0, 13, f"left over: {stats}")

    def test_law_13_concurrent_receives_are_disjoint(self, lab: BrokerLab) -> None:
        keeper = lab.client()
        queues = [unique("q") for _ in range(self.budget.races)]
        for queue in queues:
            keeper.publish(*lab.messages(6, queue))

        async def receive(broker: Broker, number: int) -> list[Delivery]:
            return list(await broker.receive([queues[number]], limit=3, lease=LONG, wait=0.0))

        for queue, answers in zip(queues, self.rounds(lab, len(queues), *[receive] * 3), strict=True):
            found = [each.message.id for got in answers for each in got]
            check(len(found) == len(set(found)), 13, f"concurrent receives shared a message: {sorted(found)}")
            left = [each.message.id for each in keeper.drain(queue)]
            check(
                len(set(found + left)) == len(found + left) == 6, 13, f"6 messages, {len(found + left)} came"
            )

    @punctual
    def test_law_13_one_receive_has_no_message_twice(self, lab: BrokerLab) -> None:
        """Also when their leases ended, and when these were extended to the deadline they had."""
        client = lab.client()
        sent: dict[str, set[str]] = {}
        for extended in range(3):
            queue, messages = unique("q"), lab.messages(5)
            client.publish(*(lab.message(queue, id=each.id) for each in messages))
            sent[queue] = {each.id for each in messages}
            leased: list[Delivery] = []
            while found := client.receive(queue, lease=lab.pace.lease):
                leased += found
                check(len(leased) <= 5, 13, f"5 messages, {len(leased)} came while they are leased")
            for _ in range(extended):
                client.extend([each.receipt for each in leased], lab.pace.lease)
        lab.outlive(lab.pace.lease)
        for extended, (queue, ids) in enumerate(sent.items()):
            again: list[str] = []
            while found := client.receive(queue):
                again += [each.message.id for each in found]
                check(len(set(again)) == len(again), 13, f"extended {extended} times, after their leases ended came "
                      f"{again}: one twice")  # fmt: skip
            check(
                set(again) == ids,
                13,
                f"5 leases, extended {extended} times, ended; {len(again)} messages came",
            )

    def test_law_13_one_receipt_settled_twice_at_once(self, lab: BrokerLab) -> None:
        """Whatever comes first wins; the outcome is one of the two orders."""
        keeper = lab.client()
        pairs = list(combinations_with_replacement(ENDS, 2)) * max(1, self.budget.races // 10)
        queues = [unique("q") for _ in pairs]
        receipts = []
        for queue in queues:
            keeper.publish(lab.message(queue))
            receipts.append(keeper.one(queue).receipt)

        async def use(side: int, broker: Broker, number: int) -> bool:
            action = ENDS[pairs[number][side]]
            if action is None:
                return (await broker.extend([receipts[number]], LONG))[0]
            return (await broker.settle([Settlement(receipts[number], action)]))[0]

        answers = self.rounds(lab, len(pairs), partial(use, 0), partial(use, 1))
        for pair, queue, answer in zip(pairs, queues, answers, strict=True):
            self._one_won(keeper, queue, pair, answer)

    def _one_won(self, keeper: Client, queue: str, pair: tuple[str, str], answers: list[bool]) -> None:
        told = f"{pair[0]} and {pair[1]} of one receipt at once answered {answers}"
        settled = [(what, answer) for what, answer in zip(pair, answers, strict=True) if what != "extend"]
        if not settled:
            check(answers == [True, True], 6, f"{told}; its lease is live")
            return
        winners = [what for what, answer in settled if answer]
        check(len(winners) == 1, 13, f"{told}; one settles it")
        ready = len(keeper.drain(queue))
        wanted = 1 if winners[0] in {"retry", "release"} else 0
        check(ready == wanted, 13, f"{told}, and {ready} messages are ready, expected {wanted}")
        dead = int(winners[0] == "dead" and self.spec.capabilities.dead_letters)
        stats = keeper.stats(queue)
        check(stats.dead == dead, 13, f"{told}; expected {dead} dead letters, got {stats}")

    def test_law_13_purge_and_receive_share_nothing(self, lab: BrokerLab) -> None:
        keeper = lab.client()
        queues = [unique("q") for _ in range(self.budget.races)]
        for queue in queues:
            keeper.publish(*lab.messages(6, queue))

        async def work(side: int, broker: Broker, number: int) -> int:
            if (number + side) % 2:
                return await broker.purge(queues[number])
            return len(await broker.receive([queues[number]], limit=3, lease=LONG, wait=0.0))

        answers = self.rounds(lab, len(queues), partial(work, 0), partial(work, 1))
        for number, (queue, counts) in enumerate(zip(queues, answers, strict=True)):
            taken, gone = counts if number % 2 == 0 else counts[::-1]
            left = len(keeper.drain(queue))
            check(taken + gone + left == 6, 13, f"of 6 were received {taken}, purged {gone}, left {left}")
            stats = keeper.stats(queue)
            check(stats.leased == taken + left, 13, f"received {taken + left}, leased {stats.leased}")


async def _opened(lab: BrokerLab) -> Broker:
    broker = lab.spec.open(lab.url, lab.driver.options())
    await broker.open()
    return broker
