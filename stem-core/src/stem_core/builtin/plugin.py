"""The core's own plugin. It describes; drivers are imported when an adapter is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from stem_core.hookspecs import hookimpl
from stem_core.ports.backend import Backend
from stem_core.ports.broker import Broker
from stem_core.ports.capabilities import BackendCapabilities, BrokerCapabilities
from stem_core.ports.encoder import PayloadEncoder
from stem_core.ports.specs import AdapterOptions, BackendSpec, BrokerSpec, EncoderSpec

__all__ = [
    "JSON",
    "MEMORY_BACKEND",
    "MEMORY_BROKER",
    "SQLITE_BACKEND",
    "SQLITE_BROKER",
    "stem_backends",
    "stem_brokers",
    "stem_encoders",
]


def _memory_broker(url: str, options: AdapterOptions) -> Broker:
    from stem_core.builtin.memory.broker import MemoryBroker

    return MemoryBroker(url, options, MEMORY_BROKER.capabilities)


def _memory_backend(url: str, options: AdapterOptions) -> Backend:
    from stem_core.builtin.memory.backend import MemoryBackend

    return MemoryBackend(url, options, MEMORY_BACKEND.capabilities)


def _sqlite_broker(url: str, options: AdapterOptions) -> Broker:
    from stem_core.builtin.sqlite.broker import SqliteBroker

    return SqliteBroker(url, options, SQLITE_BROKER.capabilities)


def _sqlite_backend(url: str, options: AdapterOptions) -> Backend:
    from stem_core.builtin.sqlite.backend import SqliteBackend

    return SqliteBackend(url, options, SQLITE_BACKEND.capabilities)


def _json(_environment: Mapping[str, str]) -> PayloadEncoder:
    from stem_core.builtin.json_encoder import JsonEncoder

    return JsonEncoder()


MEMORY_BROKER: Final = BrokerSpec(
    name="memory",
    schemes=("memory",),
    contract=1,
    summary="In this process; gone with it. memory:// is one Stem's own, memory://name is shared.",
    capabilities=BrokerCapabilities(
        delay=True,
        priority_levels=10,
        global_priority=True,
        fifo=True,
        dead_letters=True,
        broadcast=True,
        withdraw=True,
        once_ttl=True,
    ),
    open=_memory_broker,
)
MEMORY_BACKEND: Final = BackendSpec(
    name="memory",
    schemes=("memory",),
    contract=1,
    summary="In this process; gone with it.",
    capabilities=BackendCapabilities(
        push_wait=True, ttl=True, groups=True, state=True, limiter=True, listing=True
    ),
    open=_memory_backend,
)
SQLITE_BROKER: Final = BrokerSpec(
    name="sqlite",
    schemes=("sqlite",),
    contract=1,
    summary="In one file on this host, shared by its processes: sqlite:///relative.db, sqlite:////absolute.db.",
    capabilities=BrokerCapabilities(
        delay=True,
        priority_levels=10,
        global_priority=True,
        fifo=True,
        dead_letters=True,
        broadcast=True,
        withdraw=True,
        once_ttl=True,
        durable=True,
        multi_process=True,
        max_size=16 * 1024 * 1024,
    ),
    open=_sqlite_broker,
)
SQLITE_BACKEND: Final = BackendSpec(
    name="sqlite",
    schemes=("sqlite",),
    contract=1,
    summary="In one file on this host, beside the queue or alone.",
    capabilities=BackendCapabilities(
        push_wait=True,
        ttl=True,
        groups=True,
        state=True,
        limiter=True,
        listing=True,
        durable=True,
        multi_process=True,
    ),
    open=_sqlite_backend,
)
JSON: Final = EncoderSpec(
    id="json", kind="value", contract=1, summary="JSON: exact, strict, readable anywhere.", open=_json
)


@hookimpl
def stem_brokers() -> Iterable[BrokerSpec]:
    return (MEMORY_BROKER, SQLITE_BROKER)


@hookimpl
def stem_backends() -> Iterable[BackendSpec]:
    return (MEMORY_BACKEND, SQLITE_BACKEND)


@hookimpl
def stem_encoders() -> Iterable[EncoderSpec]:
    return (JSON,)
