"""Laws 17, 18 and 19, and the refusal of what is not declared."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import pytest

from stem_core.contracts.broker.base import BrokerBase
from stem_core.contracts.broker.lab import BrokerLab
from stem_core.contracts.driver import unique
from stem_core.contracts.laws import LawBroken, broken, check
from stem_core.contracts.outage import Outage, given
from stem_core.contracts.punctual import punctual
from stem_core.envelope import DeadLetter, Release, Retry
from stem_core.errors import ConfigurationError, PublishError, UnsupportedCapability
from stem_core.ports.broker import Broker
from stem_core.ports.committer import Step

__all__ = ["ExtraLaws"]


async def _first(broker: Broker, channel: str) -> None:
    async for _ in broker.subscribe([channel]):
        return


async def _sync(broker: Broker) -> None:
    broker.commit_on_sync(object(), [Step()])


def _run(lab: BrokerLab, call: Callable[[Broker], Coroutine[Any, Any, Any]], broker: Broker) -> None:
    lab.driver.run(call(broker))


OPTIONAL: dict[str, dict[str, Callable[[Broker], Coroutine[Any, Any, Any]]]] = {
    "dead_letters": {
        "dead_list": lambda b: b.dead_list("q"),
        "dead_replay": lambda b: b.dead_replay("q"),
        "dead_purge": lambda b: b.dead_purge("q"),
    },
    "broadcast": {
        "broadcast": lambda b: b.broadcast("c", b""),
        "subscribe": lambda b: _first(b, "c"),
    },
    "withdraw": {"withdraw": lambda b: b.withdraw(["x"])},
    "transactional_publish": {
        "commit_on": lambda b: b.commit_on(object(), [Step()]),
        "commit_on_sync": _sync,
    },
}


class ExtraLaws(BrokerBase):
    # withdraw

    @punctual
    def test_law_17_withdraw_takes_what_waits(self, lab: BrokerLab) -> None:
        self.needs("withdraw")
        client = lab.client()
        ready, other, leased = lab.messages(3)
        client.publish(leased)
        held = client.one(lab.queue)
        client.publish(ready, other)
        sent = [ready.id, leased.id, "unknown"]
        wanted = [True, False, False]
        if self.spec.capabilities.delay:
            scheduled = lab.message(delay=lab.pace.lease)
            client.publish(scheduled)
            sent, wanted = [*sent, scheduled.id], [*wanted, True]
        answers = client.withdraw(*sent)
        check(answers == wanted, 17, f"withdraw of ready, leased, unknown and scheduled answered {answers}")
        check(client.withdraw(*sent) == [False] * len(sent), 17, "what was withdrawn was withdrawn again")
        check(client.end(held, Release()), 17, "withdraw took a leased message")
        lab.outlive(lab.pace.lease)
        found = sorted(each.message.id for each in client.drain(lab.queue))
        check(found == sorted([other.id, leased.id]), 17, f"after withdraw came {found}")

    def test_law_17_withdraw_reaches_every_queue_and_no_dead_letter(self, lab: BrokerLab) -> None:
        self.needs("withdraw")
        client = lab.client()
        queues = [unique("q") for _ in range(3)]
        sent = [lab.message(queue) for queue in queues]
        client.publish(*sent)
        if self.spec.capabilities.dead_letters:
            client.bury(queues[0])
        answers = client.withdraw(*(message.id for message in sent))
        dead = self.spec.capabilities.dead_letters
        check(
            answers == [not dead, True, True], 17, f"withdraw over three queues (one dead) answered {answers}"
        )
        client.nothing(queues, 17, "withdrawn")
        if dead:
            check(len(client.dead_list(queues[0]).items) == 1, 17, "withdraw took a dead letter")

    @punctual
    def test_law_17_withdraw_takes_retries(self, lab: BrokerLab) -> None:
        self.needs("withdraw")
        client = lab.client()
        now, later = lab.messages(2)
        client.publish(now, later)
        for delivery in client.drain(lab.queue):
            client.end(delivery, Retry(0.0 if delivery.message.id == now.id else lab.pace.lease))
        check(client.withdraw(now.id, later.id) == [True, True], 17, "waiting retries were not withdrawn")
        lab.outlive(lab.pace.lease)
        client.nothing(lab.queue, 17, "withdrawn")

    # broadcast

    def test_law_18_a_broadcast_reaches_every_subscriber(self, lab: BrokerLab) -> None:
        self.needs("broadcast")
        clients = [lab.client() for _ in range(3)]
        stranger = lab.client(namespace=unique())

        async def work() -> list[list[tuple[str, bytes]]]:
            got: list[list[tuple[str, bytes]]] = [[], [], [], []]
            tasks = [
                asyncio.ensure_future(_listen(client.broker, channels, got[place]))
                for place, (client, channels) in enumerate(
                    [
                        (clients[0], ["a"]),
                        (clients[1], ["a", "b"]),
                        (clients[2], ["b"]),
                        (stranger, ["a", "b"]),
                    ]
                )
            ]
            try:
                await self._until(lambda: self._probe(clients[0].broker), lambda: all(got[:3]))
                for each in got:
                    each.clear()
                for number in range(5):
                    await clients[0].broker.broadcast("a", b"a%d\0\xff" % number)
                    await clients[2].broker.broadcast("b", b"b%d" % number)
                await self._until(None, lambda: [len(_real(each)) for each in got[:3]] == [5, 10, 5])
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            return [_real(each) for each in got]

        got = lab.driver.run(work())
        on_a = [("a", b"a%d\0\xff" % number) for number in range(5)]
        on_b = [("b", b"b%d" % number) for number in range(5)]
        for found, wanted in zip(got, [on_a, on_a + on_b, on_b, []], strict=True):
            check(sorted(found) == sorted(wanted), 18, f"a subscriber got {found}, expected {wanted}")

    def test_law_18_only_current_subscribers_get_it(self, lab: BrokerLab) -> None:
        self.needs("broadcast")
        sender, early, late = lab.client(), lab.client(), lab.client()

        async def work() -> list[tuple[str, bytes]]:
            first: list[tuple[str, bytes]] = []
            task = asyncio.ensure_future(_listen(early.broker, ["a"], first))
            await self._until(lambda: self._probe(sender.broker), lambda: bool(first))
            await sender.broker.broadcast("a", b"before")
            await self._until(None, lambda: ("a", b"before") in first)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            second: list[tuple[str, bytes]] = []
            task = asyncio.ensure_future(_listen(late.broker, ["a"], second))
            await self._until(lambda: self._probe(sender.broker), lambda: bool(second))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return second

        found = lab.driver.run(work())
        check(("a", b"before") not in found, 18, "a subscriber got what was broadcast before it subscribed")

    async def _probe(self, broker: Broker) -> None:
        for channel in ("a", "b"):
            await broker.broadcast(channel, b"probe")

    async def _until(
        self, again: Callable[[], Coroutine[Any, Any, None]] | None, done: Callable[[], bool]
    ) -> None:
        """Repeat ``again`` until ``done``; gives up after ``prompt`` seconds."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self.prompt
        while not done():
            check(loop.time() < until, 18, f"a subscriber did not get everything within {self.prompt} s")
            if again is not None:
                await again()
            await asyncio.sleep(0.005)

    # transactions, durability, routes

    def test_law_19_a_route_arrives_unchanged(self, lab: BrokerLab) -> None:
        self.needs("routing")
        client = lab.client()
        route = {"exchange": "e", "routing_key": "a.b.ü", "producer": ""}
        client.publish(lab.message(route=route))
        check(dict(client.one(lab.queue).message.route) == route, 19, "a route came back different")

    def test_law_19_a_transaction_needs_a_connection_it_knows(self, lab: BrokerLab) -> None:
        self.needs("transactional_publish")
        client = lab.client()
        step = Step(publishes=(lab.message(),))
        with pytest.raises(ConfigurationError):
            lab.driver.run(client.broker.commit_on(object(), [step]))
        with pytest.raises(ConfigurationError):
            client.broker.commit_on_sync(object(), [step])
        client.nothing(lab.queue, 19, "published on no connection")

    @punctual
    @pytest.mark.parametrize("end", ["commit", "rollback"])
    def test_law_19_the_callers_transaction_decides(
        self, lab: BrokerLab, connect: Callable[[], Awaitable[Any]] | None, end: str
    ) -> None:
        self.needs("transactional_publish")
        if connect is None:
            pytest.skip("not given: connect")
        client = lab.client()
        known = lab.message(once=True)
        client.publish(known)
        held = client.one(lab.queue)
        queue = unique("q")
        steps = [
            Step(publishes=(lab.message(queue), lab.message(queue, once=True))),
            Step(publishes=(known,)),
        ]

        async def work() -> Sequence[bool]:
            conn = await connect()
            try:
                answers = await client.broker.commit_on(conn, steps)
                seen = await client.broker.receive([queue], limit=10, lease=1.0, wait=0.0)
                check(not seen, 19, "published before the caller committed")
                await getattr(conn, end)()
                return answers
            finally:
                await conn.close()

        check(list(lab.driver.run(work())) == [True, True], 19, "good steps on the caller's connection")
        found = client.drain(queue)
        wanted = 2 if end == "commit" else 0
        check(len(found) == wanted, 19, f"after a {end} {len(found)} of 2 messages came")
        check(client.end(held), 19, "a known once id took the lease of the message it names")

    def test_law_19_durable_messages_survive_every_client(self, lab: BrokerLab) -> None:
        """The store is closed by everybody and opened again; a restart of a server is the adapter's own test."""
        self.needs("durable")
        client = lab.client()
        sent = lab.messages(5)
        client.publish(*sent)
        held = client.one(lab.queue, lease=lab.pace.lease * 4)
        if self.spec.capabilities.dead_letters:
            client.end(client.one(lab.queue), DeadLetter("rejected", "kept"))
        before = client.stats(lab.queue)
        lab.driver.run(client.broker.close())
        again = lab.client()
        after = again.stats(lab.queue)
        counts = [(s.ready, s.scheduled, s.leased, s.dead) for s in (before, after)]
        check(counts[0] == counts[1], 19, f"{before} before everybody closed, {after} after")
        check(again.end(held), 19, "a lease did not survive its client")

    def test_law_19_durable_messages_survive_an_outage(self, lab: BrokerLab, outage: Outage | None) -> None:
        """What was acknowledged: a publish, an ack, a dead letter. A lease may be lost with the store."""
        self.needs("durable")
        outage = given(outage)
        client = lab.client()
        acked, dead, *waiting = lab.messages(4)
        client.publish(acked)
        client.end(client.one(lab.queue))
        if self.spec.capabilities.dead_letters:
            client.publish(dead)
            client.bury(lab.queue)
        client.publish(*waiting)
        with outage():
            pass
        again = lab.client()
        found, wanted = (sorted(each) for each in ([d.message.id for d in again.drain(lab.queue)],
                                                   [m.id for m in waiting]))  # fmt: skip
        check(found == wanted, 19, f"{wanted} were waiting when the store went down, {acked.id!r} was acked, and "
              f"{found} came after")  # fmt: skip
        if self.spec.capabilities.dead_letters:
            listed = [each.message.id for each in again.dead_list(lab.queue).items]
            check(
                listed == [dead.id],
                19,
                f"{dead.id!r} was dead when the store went down; listed after: {listed}",
            )

    # what is not declared

    @pytest.mark.parametrize("capability", OPTIONAL)
    def test_undeclared_methods_are_refused(self, lab: BrokerLab, capability: str) -> None:
        if getattr(self.spec.capabilities, capability):
            pytest.skip(f"declared: {capability}")
        client = lab.client()
        client.publish(lab.message())
        for name, call in OPTIONAL[capability].items():
            _unsupported(partial(_run, lab, call, client.broker), name, capability, self.spec.name)
        check(client.stats(lab.queue).ready == 1, 11, "a refused method did something")

    @pytest.mark.parametrize("capability", ["delay", "priority_levels", "routing"])
    def test_undeclared_fields_are_refused(self, lab: BrokerLab, capability: str) -> None:
        """A message that asks for what the broker cannot do is not stored as if it had not asked."""
        caps = self.spec.capabilities
        if capability == "priority_levels":
            asked: list[dict[str, Any]] = [{"priority": caps.priority_levels}]
        elif getattr(caps, capability):
            pytest.skip(f"declared: {capability}")
        elif capability == "routing":
            asked = [{"route": {"exchange": "e"}}]
        else:
            asked = [{"delay": 1.0}, {"not_before": lab.at(1.0)}]
        client = lab.client()
        for fields in asked:
            try:
                client.publish(lab.message(), lab.message(**fields))
            except (UnsupportedCapability, ValueError, PublishError) as error:
                if isinstance(error, PublishError) and error.outcome != "refused":
                    raise
            else:
                broken(1, f"{fields} was published, though {self.spec.name} does not declare {capability}")
        client.nothing(lab.queue, 1, "the publish was refused")

    def test_what_is_declared_is_what_the_adapter_says(self, lab: BrokerLab) -> None:
        client = lab.client()
        check(client.broker.capabilities == self.spec.capabilities, 1,
              f"the spec declares {self.spec.capabilities}, the broker {client.broker.capabilities}")  # fmt: skip
        check(self.spec.capabilities.resolution > 0, 8, "a resolution of 0 s is no promise a clock can keep")

    def test_it_joins_only_its_own_store(self, lab: BrokerLab) -> None:
        """A backend of another kind is another store."""
        client = lab.client()
        check(client.broker.join(_Elsewhere()) is None, 30, "joined a backend it cannot know")


class _Elsewhere:
    """A backend of no adapter: ``join`` may look at it, and must answer None."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


def _unsupported(call: Callable[[], object], name: str, capability: str, adapter: str) -> None:
    try:
        call()
    except UnsupportedCapability as error:
        check(
            capability in str(error),
            1,
            f"{name} of {adapter} was refused without naming {capability!r}: {error}",
        )
        return
    except Exception as error:
        raise LawBroken(1, f"{name} raised {error!r}; {adapter} does not declare {capability}, so it must be "
                        "UnsupportedCapability") from error  # fmt: skip
    broken(1, f"{name} did something, though {adapter} does not declare {capability}")


async def _listen(broker: Broker, channels: list[str], got: list[tuple[str, bytes]]) -> None:
    async with contextlib.aclosing(broker.subscribe(channels)) as stream:  # type: ignore[type-var]
        async for item in stream:
            got.append(item)  # noqa: PERF401 (its reader looks while it grows)


def _real(got: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    return [item for item in got if item[1] != b"probe"]
