"""Specs of memory adapters with parts exchanged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from stem_core.builtin.memory.backend import MemoryBackend
from stem_core.builtin.memory.broker import MemoryBroker
from stem_core.builtin.memory.groups import Group
from stem_core.builtin.memory.queues import Queues
from stem_core.builtin.memory.records import Records
from stem_core.builtin.memory.store import Store
from stem_core.builtin.plugin import MEMORY_BACKEND, MEMORY_BROKER
from stem_core.ports.specs import AdapterOptions, BackendSpec, BrokerSpec

__all__ = ["MemoryBackend", "MemoryBroker", "Queues", "Records", "Store", "backend", "broker", "committer"]


def broker(
    kind: type[MemoryBroker] = MemoryBroker, queues: type[Queues] = Queues, **capabilities: Any
) -> dict[str, Any]:
    """The attributes of a broker contract for ``kind`` on ``queues``."""
    return {"spec": broker_spec(kind, queues, **capabilities), "clock": True}


def broker_spec(
    kind: type[MemoryBroker] = MemoryBroker, queues: type[Queues] = Queues, **capabilities: Any
) -> BrokerSpec:
    declared = replace(MEMORY_BROKER.capabilities, **capabilities)

    def open(url: str, options: AdapterOptions) -> MemoryBroker:
        made = kind(url, options, declared)
        store = made._store
        if type(store.queues) is not queues:
            store.queues = queues(options.once_ttl)
        return made

    return replace(MEMORY_BROKER, capabilities=declared, open=open)


def backend(
    kind: type[MemoryBackend] = MemoryBackend, records: type[Records] = Records, **capabilities: Any
) -> dict[str, Any]:
    """The attributes of a backend contract for ``kind`` on ``records``."""
    return {"spec": backend_spec(kind, records, **capabilities), "clock": True}


def backend_spec(
    kind: type[MemoryBackend] = MemoryBackend, records: type[Records] = Records, **capabilities: Any
) -> BackendSpec:
    declared = replace(MEMORY_BACKEND.capabilities, **capabilities)

    def open(url: str, options: AdapterOptions) -> MemoryBackend:
        made = kind(url, options, declared)
        if type(made.store.records) is not records:
            made.store.records = records()
        return made

    return replace(MEMORY_BACKEND, capabilities=declared, open=open)


def grouped(kind: type[Group]) -> type[Records]:
    """Records whose groups are of ``kind``."""

    class Grouped(Records):
        def group_create(self, group: Group, now: float) -> bool:
            made = kind(group.id, group.members, group.callback, group.deadline, group.ttl)
            return super().group_create(made, now)

    return Grouped


def committer(kind: type[Any], **capabilities: Any) -> dict[str, Any]:
    """The attributes of a committer contract whose broker joins with ``kind``."""

    class Joining(MemoryBroker):
        def join(self, backend: Any) -> Any:
            if isinstance(backend, MemoryBackend) and backend.store is self._store:
                return kind(self._store, self._check)
            return None

    return {"broker": broker_spec(Joining, **capabilities), "backend": MEMORY_BACKEND, "clock": True}
