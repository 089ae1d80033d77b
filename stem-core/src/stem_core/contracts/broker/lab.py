"""A broker under test, with sync methods and the habits of the laws' tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from stem_core.clock import instant
from stem_core.contracts.driver import Driver, unique
from stem_core.contracts.laws import check
from stem_core.contracts.pace import LONG, Pace
from stem_core.contracts.time import Span
from stem_core.envelope import (
    Ack,
    Action,
    DeadLetter,
    DeadPage,
    Delivery,
    Message,
    Receipt,
    Settlement,
)
from stem_core.ports.broker import Broker, QueueStats
from stem_core.ports.specs import BrokerSpec

__all__ = ["BrokerLab", "Client"]


class Client:
    """One client of a broker: the port's methods, sync, and a few that several laws share."""

    def __init__(self, driver: Driver, pace: Pace, broker: Broker) -> None:
        self.driver = driver
        self.pace = pace
        self.broker = broker
        self.when = driver.now()
        """When the last call happened."""

    def _do(self, work: Any) -> Any:
        answer, self.when = self.driver.timed(work)
        return answer

    def publish(self, *messages: Message) -> list[bool]:
        answers = list(self._do(self.broker.publish(messages)))
        check(len(answers) == len(messages), 1, f"{len(messages)} published, {len(answers)} answers")
        return answers

    def receive(
        self,
        queues: Sequence[str] | str,
        *,
        limit: int = 100,
        lease: float = LONG,
        wait: float = 0.0,
    ) -> list[Delivery]:
        names = [queues] if isinstance(queues, str) else list(queues)
        return list(self._do(self.broker.receive(names, limit=limit, lease=lease, wait=wait)))

    def settle(self, *settlements: Settlement) -> list[bool]:
        answers = list(self._do(self.broker.settle(settlements)))
        check(len(answers) == len(settlements), 5, f"{len(settlements)} settled, {len(answers)} answers")
        return answers

    def end(self, delivery: Delivery, action: Action | None = None) -> bool:
        """Settle one delivery; an ack unless told otherwise."""
        return self.settle(Settlement(delivery.receipt, action or Ack()))[0]

    def bury(self, queue: str, reason: str = "rejected", detail: str = "") -> None:
        """Dead-letter everything that is ready."""
        for delivery in self.drain(queue):
            check(self.end(delivery, DeadLetter(reason, detail)), 5, "a live lease could not be settled")

    def extend(self, receipts: Iterable[Receipt], lease: float) -> list[bool]:
        asked = list(receipts)
        answers = list(self._do(self.broker.extend(asked, lease)))
        check(len(answers) == len(asked), 6, f"{len(asked)} extended, {len(answers)} answers")
        return answers

    def stats(self, queue: str) -> QueueStats:
        answer: QueueStats = self._do(self.broker.stats(queue))
        return answer

    def purge(self, queue: str) -> int:
        return int(self._do(self.broker.purge(queue)))

    def withdraw(self, *ids: str) -> list[bool]:
        answers = list(self._do(self.broker.withdraw(ids)))
        check(len(answers) == len(ids), 17, f"{len(ids)} withdrawn, {len(answers)} answers")
        return answers

    def dead_list(self, queue: str, **filters: Any) -> DeadPage:
        answer: DeadPage = self._do(self.broker.dead_list(queue, **filters))
        return answer

    def dead_replay(self, queue: str, **filters: Any) -> list[tuple[str, int]]:
        return [(id, generation) for id, generation in self._do(self.broker.dead_replay(queue, **filters))]

    def dead_purge(self, queue: str, **filters: Any) -> int:
        return int(self._do(self.broker.dead_purge(queue, **filters)))

    def one(self, queue: str, *, lease: float = LONG) -> Delivery:
        """The next delivery of ``queue``, which must be there."""
        found = self.receive(queue, limit=1, lease=lease)
        check(len(found) == 1, 1, f"a message of {queue!r} is ready and receive(limit=1) gave {len(found)}")
        return found[0]

    def drain(self, queues: Sequence[str] | str, *, lease: float = LONG, limit: int = 100) -> list[Delivery]:
        """Receive until there is nothing more; partial batches are legal."""
        found: list[Delivery] = []
        seen: set[tuple[str, str]] = set()
        while batch := self.receive(queues, limit=limit, lease=lease):
            check(len(batch) <= limit, 14, f"receive(limit={limit}) gave {len(batch)}")
            found += batch
            keys = [(each.message.queue, each.message.id) for each in batch]
            again = [key for place, key in enumerate(keys) if key in seen or key in keys[:place]]
            check(not again or lease < LONG, 4, f"{again} came again while leased for {lease} s")
            seen.update(keys)
            check(len(found) <= 100_000, 4, "receive does not end")
        return found

    def nothing(self, queues: Sequence[str] | str, law: int, why: str) -> None:
        """Check that nothing can be received."""
        found = self.receive(queues)
        check(not found, law, f"{why}, but {[d.message.id for d in found]} came")


class BrokerLab:
    """A driver, a spec and a URL: makes clients of one namespace."""

    def __init__(self, driver: Driver, spec: BrokerSpec, url: str, pace: Pace) -> None:
        self.driver = driver
        self.spec = spec
        self.caps = spec.capabilities
        self.url = url
        self.pace = pace
        self.queue = unique("q")
        """A queue nobody else uses."""

    def client(self, *, namespace: str | None = None) -> Client:
        """Another client, open."""
        return Client(self.driver, self.pace, self.driver.broker(self.spec, self.url, namespace=namespace))

    def message(self, queue: str | None = None, **fields: Any) -> Message:
        """A message with an id of its own."""
        id = fields.pop("id", None) or unique("m")
        sealed = fields.pop("sealed", None)
        return Message(
            id=id, queue=queue or self.queue, sealed=id.encode() if sealed is None else sealed, **fields
        )

    def messages(self, count: int, queue: str | None = None, **fields: Any) -> list[Message]:
        return [self.message(queue, **fields) for _ in range(count)]

    def at(self, seconds: float) -> datetime:
        """The instant ``seconds`` from now by the store's clock."""
        return instant(self.driver.time.now() + seconds)

    def now(self) -> Span:
        return self.driver.now()

    def advance(self, seconds: float) -> None:
        self.driver.advance(seconds)

    def renew(self) -> None:
        """Begin again, elsewhere."""
        self.driver.renew()
        self.queue = unique("q")

    def outlive(self, lease: float) -> None:
        """Let ``lease`` end, and the time pass within which that must show."""
        self.driver.advance(lease + self.pace.slack + 0.01)
