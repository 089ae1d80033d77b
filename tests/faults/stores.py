"""Faults of laws 10, 15, 16 and 19 in backends and committers: namespaces, outages, closing, durability."""

from __future__ import annotations

import asyncio
from typing import Any

from stem_core.builtin.memory.committer import MemoryCommitter
from stem_core.contracts import BackendContract, BrokerContract, CommitterContract
from stem_core.errors import AdapterError
from stem_core.ports.backend import LimitAnswer
from tests.faults.harness import broken
from tests.faults.memory import (
    MemoryBackend,
    MemoryBroker,
    Queues,
    Records,
    backend,
    backend_spec,
    broker,
    broker_spec,
    committer,
)
from tests.faults.offers import Wire, on_the_wire, remote
from tests.faults.publishing import changed, changed_options

# law 10: namespaces


def of_a_prefix(base: type) -> type:
    class Cut(base):
        """Everything of a longer namespace is seen."""

        def __init__(self, url, options, capabilities):
            super().__init__(url, changed_options(options, options.namespace[:17]), capabilities)

    return Cut


@broken(10, BackendContract)
def statuses_of_a_longer_namespace() -> Any:
    return backend(of_a_prefix(MemoryBackend))


def shared(name: str, *methods: str) -> None:
    """One table for all namespaces behind ``methods``."""

    def make() -> Any:
        tables: dict[str, Records] = {}

        class R(Records):
            table: Records

        def through(method: str) -> Any:
            return lambda self, *args: getattr(self.table, method)(*args)

        for method in methods:
            setattr(R, method, through(method))

        class B(MemoryBackend):
            def __init__(self, url, options, capabilities):
                super().__init__(url, options, capabilities)
                if not isinstance(self.store.records, R):
                    self.store.records = R()
                self.store.records.table = tables.setdefault(url, Records())

        return backend(B, R)

    make.__name__ = name
    broken(10, BackendContract)(make)


shared("limits_are_shared_by_namespaces", "limit_take")
shared("groups_are_shared_by_namespaces", "group_create", "group_add", "group_close", "group_get")
shared("values_are_shared_by_namespaces", "state_read", "state_write", "state_delete", "state_scan")


@broken(10, CommitterContract)
def steps_of_a_longer_namespace() -> Any:
    class B(of_a_prefix(MemoryBroker)):
        def join(self, other):
            return MemoryCommitter(self._store, self._check)

    return {"broker": broker_spec(B), "backend": backend_spec(of_a_prefix(MemoryBackend)), "clock": True}


@broken(10, CommitterContract)
def once_is_once_in_all_namespaces() -> Any:
    """Ids of children are remembered beside the store, without their namespace."""
    known: dict[tuple[str, str], Any] = {}

    class C(MemoryCommitter):
        def _commit(self, step, now, queues):
            new = [m for m in step.publishes if known.setdefault((m.queue, m.id), self._store) is self._store]
            return super()._commit(changed(step, publishes=tuple(new)), now, queues)

    return committer(C)


# law 15: a store that can be cut off


@broken(15, BackendContract)
def a_result_is_missing_without_connection() -> Any:
    """Any error of a fetch reads as "no such task"."""
    wire = Wire()

    class B(remote(wire, MemoryBackend)):
        async def fetch(self, ids):
            try:
                return await super().fetch(ids)
            except AdapterError:
                return [None] * len(ids)

    return on_the_wire(wire, backend(B))


@broken(15, BackendContract)
def a_wait_times_out_without_connection() -> Any:
    wire = Wire()

    class B(remote(wire, MemoryBackend)):
        async def wait(self, id, timeout):
            try:
                return await super().wait(id, timeout)
            except AdapterError:
                return None

    return on_the_wire(wire, backend(B))


@broken(15, BackendContract)
def without_connection_every_limit_grants() -> Any:
    """Fails open: an outage lets everything through at once."""
    wire = Wire()

    class B(remote(wire, MemoryBackend)):
        async def limit_take(self, key, permits, rate, burst):
            return await super().limit_take(key, permits, rate, burst) if wire.up else LimitAnswer(True, 0.0)

    return on_the_wire(wire, backend(B))


@broken(15, BackendContract)
def the_backends_driver_error_comes_through() -> Any:
    wire = Wire()

    class B(remote(wire, MemoryBackend)):
        def _check_open(self):
            try:
                super()._check_open()
            except AdapterError as error:
                raise ConnectionResetError(str(error)) from None

    return on_the_wire(wire, backend(B))


@broken(15, BackendContract)
def a_subscription_is_not_made_again() -> Any:
    """The connection that waits is kept after it broke: every later wait fails."""
    wire = Wire()

    class B(remote(wire, MemoryBackend)):
        async def wait(self, id, timeout):
            if wire.cuts:
                raise AdapterError("connection is closed")
            return await super().wait(id, timeout)

    return {**on_the_wire(wire, backend(B)), "prompt": -9.5}


def committing_remotely(wire: Wire, kind: type[MemoryCommitter]) -> Any:
    class B(remote(wire)):
        def join(self, other):
            return kind(self._store, self._check)

    return on_the_wire(
        wire,
        {"broker": broker_spec(B), "backend": backend_spec(remote(wire, MemoryBackend)), "clock": True},
    )


@broken(15, CommitterContract)
def without_connection_every_step_is_refused() -> Any:
    """False says that the lease was lost, and the worker drops a task that is done."""
    wire = Wire()

    class C(MemoryCommitter):
        async def commit(self, steps):
            return await super().commit(steps) if wire.up else [False] * len(steps)

    return committing_remotely(wire, C)


@broken(15, CommitterContract)
def a_commit_hangs_without_connection() -> Any:
    wire = Wire()

    class C(MemoryCommitter):
        async def commit(self, steps):
            if not wire.up:
                await asyncio.get_running_loop().create_future()
            return await super().commit(steps)

    return {**committing_remotely(wire, C), "prompt": -9.5}


# law 16: closing


@broken(16, BackendContract)
def a_second_close_of_a_backend_fails() -> Any:
    class B(MemoryBackend):
        async def close(self):
            self._check_open()
            await super().close()

    return backend(B)


@broken(16, BackendContract)
def a_closed_backend_goes_on() -> Any:
    class B(MemoryBackend):
        async def close(self):
            return None

    return backend(B)


@broken(16, BackendContract)
def a_closed_backend_raises_the_drivers_error() -> Any:
    class B(MemoryBackend):
        def _check_open(self):
            try:
                super()._check_open()
            except AdapterError:
                raise RuntimeError("pool is closed") from None

    return backend(B)


@broken(16, BackendContract)
def values_can_be_written_after_close() -> Any:
    """Only some methods look whether the backend is open."""

    class B(MemoryBackend):
        async def state_write(self, key, value, *, expect, ttl):
            with self.store.lock:
                return self.store.records.state_write(key, value, expect, ttl, self.store.clock.time())

    return backend(B)


@broken(16, BackendContract)
def close_forgets_who_waits() -> Any:
    class B(MemoryBackend):
        async def close(self):
            self._is_open = False

    return backend(B)


@broken(16, BrokerContract)
def dead_letters_can_be_purged_after_close() -> Any:
    class B(MemoryBroker):
        async def dead_purge(self, queue, **filters):
            was, self._is_open = self._is_open, True
            try:
                return await super().dead_purge(queue, **filters)
            finally:
                self._is_open = was

    return broker(B)


def unchecked(self, store, check):
    """Who holds a committer can go on after everybody closed."""
    MemoryCommitter.__init__(self, store, lambda messages: None)


@broken(16, CommitterContract)
def a_committer_outlives_its_broker() -> Any:
    return committer(type("C", (MemoryCommitter,), {"__init__": unchecked}))


@broken(16, CommitterContract)
def a_closed_committer_raises_the_drivers_error() -> Any:
    class C(MemoryCommitter):
        async def commit(self, steps):
            try:
                return await super().commit(steps)
            except AdapterError:
                raise RuntimeError("pool is closed") from None

    return committer(C)


# law 19: claimed durable, and in memory


class Backends(MemoryBackend):
    """Counts who is open."""

    async def open(self):
        self.store.__dict__["users"] = self.store.__dict__.get("users", 0) + 1
        await super().open()

    async def close(self):
        if self._is_open:
            self.store.__dict__["users"] -= 1
            if not self.store.__dict__["users"]:
                self.forget()
        await super().close()

    def forget(self):
        raise NotImplementedError


@broken(19, BackendContract)
def results_are_kept_until_the_last_one_closes() -> Any:
    class B(Backends):
        def forget(self):
            self.store.records = Records()

    return backend(B, durable=True)


@broken(19, BackendContract)
def only_results_are_durable() -> Any:
    """Statuses are on disk; groups are in memory."""

    class B(Backends):
        def forget(self):
            kept, self.store.records = self.store.records, Records()
            self.store.records._rows = kept._rows

    return backend(B, durable=True)


@broken(19, BackendContract)
def results_are_lost_with_the_server() -> Any:
    wire = Wire()

    class B(remote(wire, MemoryBackend)):
        def _check_open(self):
            super()._check_open()
            if self.store.__dict__.setdefault("cuts", wire.cuts) < wire.cuts:
                self.store.records, self.store.__dict__["cuts"] = Records(), wire.cuts

    return on_the_wire(wire, backend(B, durable=True))


@broken(19, BrokerContract)
def messages_are_lost_with_the_server() -> Any:
    wire = Wire()

    class B(remote(wire)):
        def _check_open(self):
            super()._check_open()
            if self._store.__dict__.setdefault("cuts", wire.cuts) < wire.cuts:
                self._store.queues, self._store.__dict__["cuts"] = Queues(3600.0), wire.cuts

    return on_the_wire(wire, broker(B, durable=True))


@broken(19, BrokerContract)
def acks_are_lost_with_the_server() -> Any:
    """The store goes back to what it wrote last; acks are not written."""
    wire = Wire()

    class B(remote(wire)):
        async def settle(self, settlements):
            for each in settlements:
                if self._store.queues.holds(each.receipt):
                    _, entry = self._store.queues._leases[each.receipt]
                    self._store.__dict__.setdefault("acked", []).append(entry.message)
            return await super().settle(settlements)

        async def open(self):
            await super().open()
            if wire.cuts:
                lost = self._store.__dict__.pop("acked", [])
                await self.publish([changed(message, once=False) for message in lost])

    return on_the_wire(wire, broker(B, durable=True))
