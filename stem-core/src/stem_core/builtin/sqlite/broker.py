"""The SQLite broker: the broker port on a :class:`Session`."""

from __future__ import annotations

import asyncio
import functools
import sqlite3
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, Final

from stem_core.builtin.messages import check_messages
from stem_core.builtin.sqlite import broadcasts, dead, queues
from stem_core.builtin.sqlite.backend import SqliteBackend
from stem_core.builtin.sqlite.committer import SqliteCommitter
from stem_core.builtin.sqlite.session import Session
from stem_core.builtin.sqlite.unit import Unit
from stem_core.builtin.sqlite.writer import CommitError
from stem_core.builtin.waiters import Waiter
from stem_core.envelope import Action, DeadPage, Delivery, Message, Receipt, Release, Settlement
from stem_core.errors import AdapterError, PublishError, UnsupportedCapability
from stem_core.ports.backend import Backend
from stem_core.ports.broker import QueueStats
from stem_core.ports.capabilities import BrokerCapabilities
from stem_core.ports.committer import Committer, Step
from stem_core.ports.specs import AdapterOptions

__all__ = ["SqliteBroker"]

#: Seconds after which a waiting receiver looks again whatever it was told.
_LOOK_AGAIN: Final = 5.0


class SqliteBroker:
    """``sqlite:///relative.db`` and ``sqlite:////absolute.db``."""

    server_version = f"sqlite {sqlite3.sqlite_version}"
    """For reports."""

    def __init__(self, url: str, options: AdapterOptions, capabilities: BrokerCapabilities) -> None:
        self.capabilities = capabilities
        self.session = Session(url, options, "broker")
        self._once_ttl = options.once_ttl
        self._turn = 0

    async def open(self) -> None:
        await self.session.open()

    async def close(self) -> None:
        await self.session.close()

    async def publish(self, messages: Sequence[Message]) -> Sequence[bool]:
        self._check(messages)
        try:
            return await self.session.write(lambda unit: queues.publish(unit, self.session.ns, messages))
        except CommitError as error:
            raise PublishError(str(error), outcome="unknown") from error
        except AdapterError as error:
            raise PublishError(str(error), outcome="refused") from error

    def _check(self, messages: Sequence[Message]) -> None:
        check_messages(messages, self.capabilities)

    async def receive(
        self, queues: Sequence[str], *, limit: int, lease: float, wait: float
    ) -> Sequence[Delivery]:
        loop = asyncio.get_running_loop()
        names = list(dict.fromkeys(queues))
        deadline = loop.time() + wait
        deliveries = await self._claim(names, limit, lease)
        while not deliveries and limit > 0 and loop.time() < deadline:
            if await self._wait(names, deadline):
                deliveries = await self._claim(names, limit, lease)
        return deliveries

    async def _claim(self, names: list[str], limit: int, lease: float) -> list[Delivery]:
        """One attempt; each call begins with another queue, so equal ones take turns across calls too."""
        ns = self.session.ns
        if limit < 1 or not names:
            return []
        first = self._turn % len(names)
        self._turn += 1
        turned = names[first:] + names[:first]
        # Lost with the machine's power, a claim is a second delivery: no reason to wait for the disk.
        return await self.session.write(
            lambda unit: queues.claim(unit, ns, turned, limit, lease), undo=self._give_back, durable=False
        )

    def _give_back(self, deliveries: list[Delivery]) -> None:
        """A cancelled receive's: nobody will ever hold them, so nobody need wait for their leases to end."""
        ns = self.session.ns
        releases = [Settlement(delivery.receipt, Release()) for delivery in deliveries]
        if releases:
            self.session.write_later(lambda unit: _settle(unit, ns, releases, self._once_ttl))

    async def _wait(self, names: list[str], deadline: float) -> bool:
        """Whether there is something to claim now; False when it is worth another look, or time is up."""
        database, ns = self.session.database, self.session.ns
        waiter = Waiter()
        with database.lock:
            for name in names:
                database.for_messages.add((ns, name), waiter)
        try:
            due = await self.session.read(lambda unit: queues.next_event(unit, ns, names))
            if due is not None and due <= database.clock.time():
                return True
            patience = deadline - asyncio.get_running_loop().time()
            if patience > 0:
                database.watch()
                await waiter.wait(min(patience, _LOOK_AGAIN), database.clock, due)
            return False
        finally:
            with database.lock:
                for name in names:
                    database.for_messages.discard((ns, name), waiter)

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[bool]:
        ns = self.session.ns
        return await self.session.write(lambda unit: _settle(unit, ns, settlements, self._once_ttl))

    async def extend(self, receipts: Sequence[Receipt], lease: float) -> Sequence[bool]:
        ns = self.session.ns
        return await self.session.write(lambda unit: queues.extend(unit, ns, receipts, lease), durable=False)

    async def stats(self, queue: str) -> QueueStats:
        return await self.session.read(lambda unit: queues.stats(unit, self.session.ns, queue))

    async def purge(self, queue: str) -> int:
        ns = self.session.ns
        return await self.session.write(lambda unit: queues.purge(unit, ns, queue, self._once_ttl))

    def join(self, backend: Backend) -> Committer | None:
        if isinstance(backend, SqliteBackend) and self.session.is_of(backend.session):
            return SqliteCommitter(self.session, self._check)
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
        wanted = dead.Filter(ids, reason, before, after=0 if cursor is None else int(cursor))
        return await self.session.read(lambda unit: dead.listing(unit, self.session.ns, queue, wanted, limit))

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
        wanted = dead.Filter(ids, reason, before)
        return await self.session.write(
            lambda unit: dead.replay(unit, self.session.ns, queue, wanted, limit, dry_run=dry_run)
        )

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
        wanted = dead.Filter(ids, reason, before)
        return await self.session.write(
            lambda unit: dead.purge(unit, self.session.ns, queue, wanted, limit, keep, self._once_ttl)
        )

    # broadcast

    async def broadcast(self, channel: str, data: bytes) -> None:
        await self.session.write(lambda unit: broadcasts.send(unit, self.session.ns, channel, data))

    async def subscribe(self, channels: Sequence[str]) -> AsyncIterator[tuple[str, bytes]]:
        ns = self.session.ns
        last = await self.session.read(broadcasts.latest)
        while True:
            database = self.session.database
            waiter = Waiter()
            with database.lock:
                database.for_broadcasts.add(ns, waiter)
            try:
                look = functools.partial(broadcasts.since, ns=ns, channels=channels, after=last)
                found = await self.session.read(look)
                if not found:
                    database.watch()
                    await waiter.wait(_LOOK_AGAIN)
            finally:
                with database.lock:
                    database.for_broadcasts.discard(ns, waiter)
            for last, channel, data in found:  # noqa: B007 (the last of them is where the next look begins)
                yield channel, data

    async def withdraw(self, ids: Sequence[str]) -> Sequence[bool]:
        ns = self.session.ns
        return await self.session.write(lambda unit: queues.withdraw(unit, ns, ids, self._once_ttl))

    # transactional_publish

    async def commit_on(self, conn: Any, steps: Sequence[Step]) -> Sequence[bool]:
        return self.commit_on_sync(conn, steps)

    def commit_on_sync(self, conn: Any, steps: Sequence[Step]) -> Sequence[bool]:
        raise UnsupportedCapability(
            "sqlite does not declare transactional_publish: its file is written by one thread only; publish "
            "without publish_connection, or use an adapter that declares it (stem-postgres)"
        )


def _settle(unit: Unit, ns: int, settlements: Sequence[Settlement], once_ttl: float) -> list[bool]:
    good = queues.held(unit, ns, [each.receipt for each in settlements])
    actions: dict[int, Action] = {}
    done = []
    for each in settlements:
        seq = good.get(each.receipt)
        new = seq is not None and seq not in actions
        if seq is not None and new:
            actions[seq] = each.action
        done.append(new)
    queues.settle(unit, ns, actions, once_ttl)
    return done
