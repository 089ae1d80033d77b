"""The broker: streams with consumer groups, changed by fenced scripts. Keys are documented in ``keys``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NoReturn

from stem_core.envelope import DeadPage, Delivery, Message, Receipt, Settlement
from stem_core.errors import AdapterError, UnsupportedCapability
from stem_core.ports.broker import QueueStats
from stem_core.ports.capabilities import BrokerCapabilities
from stem_core.ports.specs import AdapterOptions
from stem_redis.batches import Roots, check_message, publish_calls, receipt_row, settlement_row
from stem_redis.connection import Server
from stem_redis.dead import DeadFilter, DeadLetters
from stem_redis.doorbell import Doorbell
from stem_redis.errors import as_publish_error
from stem_redis.keys import Keys
from stem_redis.scripts import SCRIPTS
from stem_redis.subscription import Subscription
from stem_redis.wire import Row, instant_of, milliseconds, pack_rows

if TYPE_CHECKING:
    from stem_core.ports import Backend, Committer, Step

__all__ = ["RedisBroker"]

_MOST_ROWS: Final = 500
#: Messages sent before the answers to them are read.
_MOST_PUBLISHED: Final = 5000


class RedisBroker:
    """Implements ``stem_core.ports.Broker``."""

    def __init__(self, url: str, options: AdapterOptions, capabilities: BrokerCapabilities) -> None:
        self.capabilities = capabilities
        self.server = Server(url, options)
        self.keys = Keys(options.namespace)
        self.once_ttl = milliseconds(options.once_ttl)
        self._doorbell = Doorbell(self.server)
        self._dead = DeadLetters(self.server, self.keys, self.once_ttl)
        self._turn = 0
        self._quiet: tuple[frozenset[str], float] = frozenset(), 0.0
        """Queues that the last receive left without a message or a bell, and until when nothing is due there."""

    @property
    def server_version(self) -> str | None:
        """The server's name and version once it is open, where the user may ask for it."""
        return self.server.version

    async def open(self) -> None:
        await self.server.open()

    async def close(self) -> None:
        await self._doorbell.close()
        await self.server.close()

    # publish

    async def publish(self, messages: Sequence[Message]) -> Sequence[bool]:
        self.server.check_open()
        for message in messages:
            check_message(message, self.capabilities)
        stored: list[bool] = []
        for first in range(0, len(messages), _MOST_PUBLISHED):
            calls = publish_calls(self.keys, messages[first : first + _MOST_PUBLISHED])
            try:
                answers = await self.server.run_all(SCRIPTS["publish"], calls)
            except AdapterError as error:
                raise as_publish_error(error, some_done=bool(stored)) from error
            for answer in answers:
                stored += [flag == 49 for flag in answer]  # ord("1")
        return stored

    # receive

    async def receive(
        self, queues: Sequence[str], *, limit: int, lease: float, wait: float
    ) -> Sequence[Delivery]:
        self.server.check_open()
        names = list(dict.fromkeys(queues))
        if not names or limit < 1:
            return []
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        arguments = limit, milliseconds(lease)
        quiet, self._quiet = self._quiet, (frozenset[str](), 0.0)
        # A claim that found nothing took the bells away, so that what came since has rung: it need not be repeated.
        until_next = quiet[1] - loop.time() if wait > 0 and quiet[0] == frozenset(names) else 0.0
        while True:
            queues = self._in_turn(names)
            roots = [self.keys.root(name) for name in queues]
            if until_next > 0:
                seconds = min(deadline - loop.time(), until_next)
                answer = await self._doorbell.wait(roots, seconds, "claim", *arguments)
            else:
                answer = await self.server.run("claim", roots, *arguments)
            if answer is None:
                answer = await self.server.run("claim_due", roots, *arguments)
            found, until_next = _deliveries(queues, lease, answer)
            if found:
                return found
            if loop.time() >= deadline:
                self._quiet = frozenset(names), loop.time() + until_next
                return found

    def _in_turn(self, names: Sequence[str]) -> list[str]:
        """The queues, beginning with another one each time."""
        self._turn += 1
        at = self._turn % len(names)
        return [*names[at:], *names[:at]]

    # leases

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[bool]:
        self.server.check_open()
        answers: list[bool] = []
        for first in range(0, len(settlements), _MOST_ROWS):
            roots = Roots(self.keys)
            rows = [settlement_row(roots, each) for each in settlements[first : first + _MOST_ROWS]]
            answers += await self._run_rows("settle", roots, rows, self.once_ttl)
        return answers

    async def extend(self, receipts: Sequence[Receipt], lease: float) -> Sequence[bool]:
        self.server.check_open()
        answers: list[bool] = []
        for first in range(0, len(receipts), _MOST_ROWS):
            roots = Roots(self.keys)
            rows = [receipt_row(roots, each) for each in receipts[first : first + _MOST_ROWS]]
            answers += await self._run_rows("extend", roots, rows, milliseconds(lease))
        return answers

    async def _run_rows(
        self, script: str, roots: Roots, rows: Sequence[Row | None], number: int
    ) -> list[bool]:
        """One answer for each row; False for None, a receipt that is none of ours."""
        sent = [row for row in rows if row is not None]
        if not sent:
            return [False] * len(rows)
        flat = [item for row in sent for item in row]
        flags = iter(await self.server.run(script, roots.roots, number, pack_rows(flat)))
        return [row is not None and next(flags) == 49 for row in rows]

    # queues

    async def stats(self, queue: str) -> QueueStats:
        ready, scheduled, leased, dead, age = await self.server.run("stats", [self.keys.root(queue)])
        return QueueStats(
            ready=ready,
            scheduled=scheduled,
            leased=leased,
            dead=dead,
            oldest_ready_age=None if age < 0 else age / 1000,
        )

    async def purge(self, queue: str) -> int:
        removed = 0
        while now := await self.server.run("purge", [self.keys.root(queue)], self.once_ttl):
            removed += now
        return removed

    async def counts(self, queue: str) -> dict[str, int]:
        """What happened to a queue's messages since it was first used: ``published``, ``acked``, ``purged``.

        At rest published = acked + purged + ready + scheduled + leased + dead (law 11).
        """
        flat = await self.server.command("HGETALL", f"{self.keys.root(queue)}:counts")
        found = {name.decode(): int(value) for name, value in zip(flat[::2], flat[1::2], strict=True)}
        return {name: found.get(name, 0) for name in ("published", "acked", "purged")}

    def join(self, backend: Backend) -> Committer | None:
        from stem_redis.backend import RedisBackend
        from stem_redis.committer import RedisCommitter

        if (
            isinstance(backend, RedisBackend)
            and self.server.identity is not None
            and self.server.identity == backend.server.identity
            and self.keys.prefix == backend.keys.prefix
        ):
            return RedisCommitter(self.server, self.keys, self.once_ttl, self.capabilities)
        return None

    # dead letters

    async def dead_list(
        self,
        queue: str,
        *,
        ids: Sequence[str] | None = None,
        reason: str | None = None,
        before: datetime | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> DeadPage:
        return await self._dead.page(queue, DeadFilter(ids, reason, before), limit, cursor)

    async def dead_replay(
        self,
        queue: str,
        *,
        ids: Sequence[str] | None = None,
        reason: str | None = None,
        before: datetime | None = None,
        limit: int | None = None,
        dry_run: bool = False,
    ) -> Sequence[tuple[str, int]]:
        return await self._dead.replay(queue, DeadFilter(ids, reason, before), limit, dry_run=dry_run)

    async def dead_purge(
        self,
        queue: str,
        *,
        ids: Sequence[str] | None = None,
        reason: str | None = None,
        before: datetime | None = None,
        limit: int | None = None,
        keep: int = 0,
    ) -> int:
        return await self._dead.purge(queue, DeadFilter(ids, reason, before), limit, keep)

    # broadcast

    async def broadcast(self, channel: str, data: bytes) -> None:
        await self.server.command("PUBLISH", self.keys.broadcast(channel), data)

    async def subscribe(self, channels: Sequence[str]) -> AsyncIterator[tuple[str, bytes]]:
        names = {self.keys.broadcast(channel): channel for channel in channels}
        if not names:
            return
        subscription = await Subscription.connect(self.server)
        try:
            await subscription.subscribe(*names)
            while True:
                kind, channel, data = await subscription.read()
                if kind == "message":
                    yield names[channel], data
        finally:
            await subscription.close()

    # not declared

    async def withdraw(self, ids: Sequence[str]) -> Sequence[bool]:
        raise UnsupportedCapability(
            "stem-redis has no 'withdraw': a stream cannot be searched by id; revoke the task instead, "
            "then it is dropped when a worker receives it"
        )

    async def commit_on(self, conn: Any, steps: Sequence[Step]) -> Sequence[bool]:
        self._no_transactions()

    def commit_on_sync(self, conn: Any, steps: Sequence[Step]) -> Sequence[bool]:
        self._no_transactions()

    def _no_transactions(self) -> NoReturn:
        raise UnsupportedCapability(
            "stem-redis has no 'transactional_publish': publish after your transaction has committed, "
            "or use stem-postgres on the database it is in"
        )


def _deliveries(queues: Sequence[str], lease: float, answer: Any) -> tuple[list[Delivery], float]:
    """What a claim handed out, and the seconds until something may become due."""
    now, until_next, groups = answer
    lease_until = instant_of(now) + timedelta(seconds=lease)
    found: list[Delivery] = []
    for index, level, entries, counts in groups:
        queue = queues[index - 1]
        for n, (entry, fields) in enumerate(entries):
            given = counts[n] if counts else 1
            generation = attempt = deliveries = once = 0
            if len(fields) > 4:
                generation, attempt, deliveries, once = map(int, fields[5].split())
            id = fields[1].decode()
            found.append(
                Delivery(
                    message=Message(id=id, queue=queue, sealed=fields[3], priority=level, once=bool(once)),
                    receipt=f"{level} {entry.decode()} {given} {id} {once} {queue}",
                    lease_until=lease_until,
                    generation=generation,
                    attempt=attempt,
                    deliveries=deliveries + given,
                )
            )
    return found, max(until_next, 1) / 1000
