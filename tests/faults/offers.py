"""Faults of laws 15, 18 and 19, and of saying no."""

from __future__ import annotations

import contextlib
from typing import Any

from stem_core.builtin.memory.backend import MemoryBackend
from stem_core.contracts import BackendContract, BrokerContract
from stem_core.errors import AdapterError, ConfigurationError
from tests.faults.harness import broken
from tests.faults.memory import MemoryBroker, Queues, backend, broker
from tests.faults.publishing import changed

# law 15: a store that can be cut off


class Wire:
    """Whether the store can be reached; one for all adapters of a fault."""

    def __init__(self) -> None:
        self.up = True
        self.cuts = 0

    @contextlib.contextmanager
    def cut(self):
        self.up = False
        self.cuts += 1
        try:
            yield
        finally:
            self.up = True


def remote(wire: Wire, base: type = MemoryBroker) -> type:
    class Remote(base):
        def _check_open(self):
            super()._check_open()
            if not wire.up:
                raise AdapterError("no connection")

    return Remote


def on_the_wire(wire: Wire, made: dict[str, Any]) -> dict[str, Any]:
    return {**made, "cut": staticmethod(wire.cut)}


@broken(15, BrokerContract)
def no_connection_is_no_message() -> Any:
    """Any error of a receive is logged and answered with nothing: alive, and never consuming again."""
    wire = Wire()

    class B(remote(wire)):
        async def receive(self, queues, **kw):
            try:
                return await super().receive(queues, **kw)
            except AdapterError:
                return []

    return on_the_wire(wire, broker(B))


@broken(15, BrokerContract)
def the_drivers_error_comes_through() -> Any:
    wire = Wire()

    class B(remote(wire)):
        def _check_open(self):
            try:
                super()._check_open()
            except AdapterError as error:
                raise ConnectionResetError(str(error)) from None

    return on_the_wire(wire, broker(B))


@broken(15, BrokerContract)
def it_never_comes_back() -> Any:
    """The connection is kept after it broke."""
    wire = Wire()

    class B(remote(wire)):
        def _check_open(self):
            super()._check_open()
            self.__dict__.setdefault("made", wire.cuts)
            if wire.cuts > self.__dict__["made"]:
                raise AdapterError("connection is closed")

    return {**on_the_wire(wire, broker(B)), "prompt": -9.5}


@broken(15, BackendContract)
def a_record_is_dropped_without_connection() -> Any:
    wire = Wire()

    class B(remote(wire, MemoryBackend)):
        async def record(self, updates):
            try:
                return await super().record(updates)
            except AdapterError:
                return [True] * len(updates)

    return on_the_wire(wire, backend(B))


# law 18: broadcasts


def inboxes(change: Any, name: str) -> None:
    def make() -> Any:
        class B(MemoryBroker):
            async def broadcast(self, channel, data):
                self._check_open()
                await change(self, channel, data, super().broadcast)

        return broker(B)

    make.__name__ = name
    broken(18, BrokerContract)(make)


async def _to_one(self, channel, data, send):
    """A work queue: each message to one of the subscribers."""
    for inbox in self._store.inboxes:
        if channel in inbox.channels:
            inbox.items.append((channel, data))
            self._store.inboxes.append(self._store.inboxes.pop(self._store.inboxes.index(inbox)))
            break
    self._store.for_broadcasts.wake(channel)


async def _to_all(self, channel, data, send):
    for inbox in self._store.inboxes:
        for mine in inbox.channels:
            inbox.items.append((mine, data))
    for inbox in self._store.inboxes:
        for mine in inbox.channels:
            self._store.for_broadcasts.wake(mine)


async def _latest(self, channel, data, send):
    for inbox in self._store.inboxes:
        inbox.items.clear()
    await send(channel, data)


async def _as_text(self, channel, data, send):
    await send(channel, data.decode("utf-8", "ignore").encode())


inboxes(_to_one, "a_broadcast_goes_to_one")
inboxes(_to_all, "a_broadcast_ignores_its_channel")
inboxes(_latest, "a_broadcast_replaces_the_last")
inboxes(_as_text, "a_broadcast_is_text")


@broken(18, BrokerContract)
def late_subscribers_get_the_past() -> Any:
    class B(MemoryBroker):
        async def broadcast(self, channel, data):
            self._store.__dict__.setdefault("past", []).append((channel, data))
            await super().broadcast(channel, data)

        async def subscribe(self, channels):
            for channel, data in list(self._store.__dict__.get("past", ())):
                if channel in channels:
                    yield channel, data
            async with contextlib.aclosing(super().subscribe(channels)) as stream:
                async for item in stream:
                    yield item

    return broker(B)


# law 19: routes and durability


@broken(19, BrokerContract)
def routes_are_dropped() -> Any:
    class Q(Queues):
        def publish(self, message, now):
            return super().publish(changed(message, route={}), now)

    return broker(queues=Q, routing=True)


@broken(19, BrokerContract)
def routes_lose_what_is_empty() -> Any:
    class Q(Queues):
        def publish(self, message, now):
            return super().publish(changed(message, route={k: v for k, v in message.route.items() if v}), now)

    return broker(queues=Q, routing=True)


@broken(19, BrokerContract)
def durable_until_the_last_one_closes() -> Any:
    class B(MemoryBroker):
        async def open(self):
            self._store.__dict__["users"] = self._store.__dict__.get("users", 0) + 1
            await super().open()

        async def close(self):
            if self._is_open:
                self._store.__dict__["users"] -= 1
                if not self._store.__dict__["users"]:
                    self._store.queues = type(self._store.queues)(3600.0)
            await super().close()

    return broker(B, durable=True)


@broken(19, BrokerContract)
def leases_end_with_the_client() -> Any:
    """Durable messages, but who holds which is kept in the client."""

    class B(MemoryBroker):
        async def close(self):
            queues = self._store.queues
            for queue, entry in list(queues._leases.values()):
                queue.leased.remove(entry.lease)
                queues._end_lease(entry)
                queue.make_ready(entry, self._store.clock.time())
            await super().close()

    return broker(B, durable=True)


class Connection:
    """A caller's transaction: what is to be published when it commits."""

    def __init__(self):
        self.work = []

    async def commit(self):
        for each in self.work:
            await each()

    async def rollback(self):
        self.work.clear()

    async def close(self):
        self.work.clear()


class Transactional(MemoryBroker):
    """Publishes on the caller's commit, done right."""

    async def commit_on(self, conn, steps):
        if not isinstance(conn, Connection):
            raise ConfigurationError(f"{conn!r} is no connection of ours")
        conn.work.append(lambda: self.publish([m for step in steps for m in step.publishes]))
        return [True] * len(steps)

    def commit_on_sync(self, conn, steps):
        raise ConfigurationError(f"{conn!r} is no connection of ours")


async def connection():
    return Connection()


def transactional(kind: type) -> dict[str, Any]:
    return {**broker(kind, transactional_publish=True), "connecting": staticmethod(connection)}


@broken(19, BrokerContract)
def published_beside_the_transaction() -> Any:
    """On a connection of its own: a rollback leaves the message."""

    class B(Transactional):
        async def commit_on(self, conn, steps):
            await super().commit_on(conn, [])
            await self.publish([m for step in steps for m in step.publishes])
            return [True] * len(steps)

    return transactional(B)


@broken(19, BrokerContract)
def only_the_first_step_is_in_the_transaction() -> Any:
    class B(Transactional):
        async def commit_on(self, conn, steps):
            await super().commit_on(conn, steps[1:])
            return [True] * len(steps)

    return transactional(B)
