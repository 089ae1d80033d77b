"""Laws 14 and 16: how a receive waits, wakes and is cancelled, and what close means."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

import pytest

from stem_core.contracts.broker.base import BrokerBase
from stem_core.contracts.broker.extras import OPTIONAL
from stem_core.contracts.broker.lab import BrokerLab
from stem_core.contracts.driver import unique
from stem_core.contracts.laws import LawBroken, broken, check
from stem_core.contracts.outage import Outage, given, recovers
from stem_core.contracts.pace import LONG
from stem_core.contracts.punctual import punctual
from stem_core.envelope import Ack, DeadLetter, Delivery, Release, Retry, Settlement
from stem_core.errors import StemError

__all__ = ["WaitingLaws"]

T = TypeVar("T")

#: Seconds a receive is asked to wait for what comes at once.
PATIENCE = 60.0
#: Turns and seconds given to a receive to begin its wait; too few make the test easier, never wrong.
BEGIN = 0.05


class WaitingLaws(BrokerBase):
    @pytest.mark.parametrize("limit", [1, 3])
    def test_law_14_never_more_than_the_limit(self, lab: BrokerLab, limit: int) -> None:
        client = lab.client()
        queues = [unique("q") for _ in range(3)]
        for queue in queues:
            client.publish(
                *(lab.message(queue, priority=n % self.spec.capabilities.priority_levels) for n in range(5))
            )
        total = 0
        while found := client.receive(queues, limit=limit):
            check(len(found) <= limit, 14, f"receive(limit={limit}) gave {len(found)}")
            total += len(found)
            leased = sum(client.stats(queue).leased for queue in queues)
            check(leased == total, 14, f"{total} were given and {leased} are leased")
        check(total == 15, 14, f"15 messages, {total} came")

    def test_law_14_returns_with_what_there_is(self, lab: BrokerLab) -> None:
        client = lab.client()
        client.publish(lab.message())
        found = lab.driver.run(
            self._within(client.broker.receive([lab.queue], limit=100, lease=LONG, wait=PATIENCE))
        )
        check(len(found) == 1, 14, "one ready message did not end a receive(limit=100)")

    def test_law_14_gives_up_after_wait(self, lab: BrokerLab) -> None:
        client = lab.client()
        for wait in (0.0, 0.05):
            found = lab.driver.run(
                self._within(client.broker.receive([lab.queue], limit=1, lease=LONG, wait=wait))
            )
            check(not found, 14, f"an empty queue gave {found}")

    @pytest.mark.parametrize("how", ["publish", "retry", "release", "due", "lease-ended", "replay"])
    @punctual
    def test_law_14_wakes_up_for_work(self, lab: BrokerLab, how: str) -> None:
        """Also for work another client brings, and for what time brings."""
        if how == "due":
            self.needs("delay")
        if how == "replay":
            self.needs("dead_letters")
        waiting, other = lab.client(), lab.client()
        unit = lab.pace.lease
        settle: Settlement | None = None
        if how == "due":
            other.publish(lab.message(delay=unit))
        elif how != "publish":
            other.publish(lab.message())
            delivery = other.one(lab.queue, lease=unit if how == "lease-ended" else LONG)
            settle = Settlement(delivery.receipt, Retry() if how == "retry" else Release())
            if how == "replay":
                other.end(delivery, DeadLetter("rejected"))

        async def work() -> Sequence[Delivery]:
            task = asyncio.ensure_future(
                waiting.broker.receive([unique("q"), lab.queue], limit=5, lease=LONG, wait=PATIENCE)
            )
            await asyncio.sleep(BEGIN)
            match how:
                case "publish":
                    await other.broker.publish([lab.message()])
                case "retry" | "release" if settle is not None:
                    await other.broker.settle([settle])
                case "replay":
                    await other.broker.dead_replay(lab.queue)
                case _:
                    await lab.driver.passing(unit + lab.pace.slack + 0.01)
            return await self._within(task)

        check(len(lab.driver.run(work())) == 1, 14, f"a waiting receive did not get what {how} brought")

    def test_law_14_everybody_who_waits_gets_work(self, lab: BrokerLab) -> None:
        """One wake-up lost among several waiting receives leaves one asleep."""
        clients = [lab.client() for _ in range(4)]

        async def work() -> list[Sequence[Delivery]]:
            tasks = [
                asyncio.ensure_future(c.broker.receive([lab.queue], limit=1, lease=LONG, wait=PATIENCE))
                for c in clients
            ]
            await asyncio.sleep(BEGIN)
            await clients[0].broker.publish(lab.messages(4))
            return list(await self._within(asyncio.gather(*tasks)))

        found = lab.driver.run(work())
        check([len(each) for each in found] == [1] * 4, 14, f"4 waiting receives, 4 messages: {found}")

    @punctual
    def test_law_14_a_cancelled_receive_leaks_nothing(self, lab: BrokerLab) -> None:
        """Whenever it is cancelled, everything comes once its lease is over."""
        client = lab.client()
        queues = [unique("q") for _ in range(6)]
        client.publish(*(message for queue in queues for message in lab.messages(3, queue)))

        async def work(queue: str, turns: int) -> Sequence[Delivery]:
            task = asyncio.ensure_future(
                client.broker.receive([queue], limit=2, lease=lab.pace.lease, wait=PATIENCE)
            )
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            try:
                return await task
            except asyncio.CancelledError:
                return []

        kept = [len(lab.driver.run(work(queue, turns))) for turns, queue in enumerate(queues)]
        lab.outlive(lab.pace.lease)
        for turns, queue in enumerate(queues):
            found = len(client.drain(queue))
            check(found == 3, 14, f"after a receive cancelled {turns} turns of the loop after its start (it gave "
                  f"{kept[turns]} messages) {found} of 3 came, once its lease was over")  # fmt: skip

    def test_law_14_cancelled_while_it_waits_it_takes_nothing_later(self, lab: BrokerLab) -> None:
        client, other = lab.client(), lab.client()

        async def work() -> None:
            task = asyncio.ensure_future(
                client.broker.receive([lab.queue], limit=1, lease=LONG, wait=PATIENCE)
            )
            await asyncio.sleep(BEGIN)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await self._within(task)

        lab.driver.run(work())
        other.publish(lab.message())
        found = other.drain(lab.queue)
        check(len(found) == 1, 14, "a cancelled receive took a message that was published later")
        client.end(found[0], Ack())

    def test_law_14_waiting_is_idle(self, lab: BrokerLab) -> None:
        """A tight poll would burn this thread's time while nothing happens."""
        client = lab.client()
        client.receive(lab.queue)
        start, turns = time.thread_time(), lab.driver.turns()
        client.receive(lab.queue, wait=0.4)
        used, turns = time.thread_time() - start, lab.driver.turns() - turns
        check(used < 0.2, 14, f"a receive that waited 0.4 s used {used:.2f} s of the processor")
        check(turns < 200, 14, f"a receive that waited 0.4 s turned its loop {turns} times")

    def test_law_14_other_calls_go_on_meanwhile(self, lab: BrokerLab) -> None:
        """A waiting receive does not hold up its own client's other calls."""
        client = lab.client()
        client.publish(lab.message())
        held = client.one(lab.queue)

        async def work() -> tuple[Sequence[bool], Sequence[bool]]:
            task = asyncio.ensure_future(
                client.broker.receive([unique("q")], limit=1, lease=LONG, wait=PATIENCE)
            )
            await asyncio.sleep(BEGIN)
            try:
                extended = await self._within(client.broker.extend([held.receipt], LONG))
                settled = await self._within(client.broker.settle([Settlement(held.receipt, Ack())]))
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            return extended, settled

        answers = [list(each) for each in lab.driver.run(work())]
        check(
            answers == [[True], [True]], 14, f"beside a waiting receive extend and settle answered {answers}"
        )

    def test_law_15_a_lost_connection_is_an_error_and_ends(
        self, lab: BrokerLab, outage: Outage | None
    ) -> None:
        outage = given(outage)
        client = lab.client()
        client.publish(lab.message(id="before"))
        broker, queue, receipt = client.broker, lab.queue, client.one(lab.queue).receipt
        calls = {
            "publish": lambda: broker.publish([lab.message(unique("q"))]),
            "receive": lambda: broker.receive([unique("q")], limit=1, lease=LONG, wait=0.0),
            "settle": lambda: broker.settle([Settlement(receipt, Ack())]),
            "extend": lambda: broker.extend([receipt], LONG),
            "stats": lambda: broker.stats(queue),
        }
        recovers(lab.driver, outage, calls, self.prompt + 10.0)
        client.publish(lab.message(id="after"))
        found = client.one(queue).message.id
        check(found == "after", 15, f"'after' was published after an outage, and {found!r} came")

    def test_law_16_close_is_idempotent(self, lab: BrokerLab) -> None:
        client = lab.client()
        client.publish(lab.message())
        for number in range(3):
            try:
                lab.driver.run(client.broker.close())
            except Exception as error:
                raise LawBroken(16, f"close number {number + 1} raised {error!r}") from error

    def test_law_16_use_after_close_is_an_error(self, lab: BrokerLab) -> None:
        client = lab.client()
        client.publish(lab.message())
        receipt = client.one(lab.queue).receipt
        lab.driver.run(client.broker.close())
        for name, call in (
            ("publish", lambda: client.publish(lab.message())),
            ("receive", lambda: client.receive(lab.queue)),
            ("settle", lambda: client.settle(Settlement(receipt, Ack()))),
            ("extend", lambda: client.extend([receipt], LONG)),
            ("stats", lambda: client.stats(lab.queue)),
            ("purge", lambda: client.purge(lab.queue)),
        ):
            _refused(name, call)
        for capability, methods in OPTIONAL.items():
            if getattr(self.spec.capabilities, capability):
                for name, method in methods.items():
                    _refused(name, partial(self._run_soon, lab, method(client.broker)))
        other = lab.client()
        check(other.stats(lab.queue).leased == 1, 16, "a call after close did something")

    def test_law_16_close_ends_a_waiting_receive(self, lab: BrokerLab) -> None:
        """With an error or with nothing; it does not wait its time out."""
        client = lab.client()

        async def work() -> None:
            task = asyncio.ensure_future(
                client.broker.receive([lab.queue], limit=1, lease=LONG, wait=PATIENCE)
            )
            await asyncio.sleep(BEGIN)
            try:
                await self._within(client.broker.close())
            except LawBroken:
                task.cancel()  # or it would keep the next close as well
                raise
            answer = (await self._within(asyncio.gather(task, return_exceptions=True)))[0]
            check(not answer or isinstance(answer, StemError | asyncio.CancelledError), 16,
                  f"close ended a waiting receive with {answer!r}")  # fmt: skip

        lab.driver.run(work())

    def _run_soon(self, lab: BrokerLab, work: Awaitable[T]) -> T:
        return lab.driver.run(self._within(work))

    async def _within(self, work: Awaitable[T]) -> T:
        """What ``work`` answers, promptly; it fails no good adapter on a busy machine."""
        try:
            return await asyncio.wait_for(work, self.prompt)
        except TimeoutError:
            broken(14, f"nothing happened within {self.prompt} s")


def _refused(name: str, call: Callable[[], object]) -> None:
    try:
        call()
    except StemError:
        return
    except Exception as error:
        raise LawBroken(16, f"{name} after close raised {error!r}; it must be a StemError") from error
    broken(16, f"{name} after close answered")
