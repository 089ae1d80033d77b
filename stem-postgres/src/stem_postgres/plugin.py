"""What stem-postgres provides. Importing this imports no driver."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from stem_core.hookspecs import hookimpl
from stem_core.ports.capabilities import BackendCapabilities, BrokerCapabilities
from stem_core.ports.outbox import OutboxSpec
from stem_core.ports.specs import AdapterOptions, BackendSpec, BrokerSpec, Finding

if TYPE_CHECKING:
    from stem_postgres.backend import PostgresBackend
    from stem_postgres.broker import PostgresBroker
    from stem_postgres.outbox import PostgresOutbox

__all__ = [
    "POSTGRES_BACKEND",
    "POSTGRES_BROKER",
    "POSTGRES_OUTBOX",
    "stem_backends",
    "stem_brokers",
    "stem_outboxes",
]

_SCHEMES = ("postgresql", "postgres")

_BROKER = BrokerCapabilities(
    delay=True,
    priority_levels=10,
    global_priority=True,
    fifo=True,
    dead_letters=True,
    broadcast=True,
    withdraw=True,
    transactional_publish=True,
    durable=True,
    multi_process=True,
    max_size=64 * 1024 * 1024,
    resolution=0.05,
    once_ttl=True,
)

_BACKEND = BackendCapabilities(
    push_wait=True,
    ttl=True,
    groups=True,
    state=True,
    limiter=True,
    listing=True,
    durable=True,
    multi_process=True,
)


def _open_broker(url: str, options: AdapterOptions) -> PostgresBroker:
    from stem_postgres.broker import PostgresBroker

    return PostgresBroker(url, options, _BROKER)


def _open_backend(url: str, options: AdapterOptions) -> PostgresBackend:
    from stem_postgres.backend import PostgresBackend

    return PostgresBackend(url, options, _BACKEND)


def _open_outbox(url: str, options: AdapterOptions) -> PostgresOutbox:
    from stem_postgres.outbox import PostgresOutbox

    return PostgresOutbox(url, options)


async def _doctor(url: str, options: AdapterOptions) -> Sequence[Finding]:
    from stem_postgres.doctor import report

    return await report(url, options)


POSTGRES_BROKER = BrokerSpec(
    name="postgres",
    schemes=_SCHEMES,
    contract=1,
    capabilities=_BROKER,
    summary="PostgreSQL 15 and later; enqueues inside your transaction",
    open=_open_broker,
    doctor=_doctor,
)

POSTGRES_BACKEND = BackendSpec(
    name="postgres",
    schemes=_SCHEMES,
    contract=1,
    capabilities=_BACKEND,
    summary="PostgreSQL 15 and later; results, groups, state and limits in one schema",
    open=_open_backend,
    doctor=_doctor,
)

POSTGRES_OUTBOX = OutboxSpec(
    name="postgres",
    schemes=_SCHEMES,
    contract=1,
    summary="messages for another broker, in your PostgreSQL transaction",
    open=_open_outbox,
)


@hookimpl
def stem_brokers() -> Iterable[BrokerSpec]:
    """The broker."""
    return [POSTGRES_BROKER]


@hookimpl
def stem_backends() -> Iterable[BackendSpec]:
    """The result backend."""
    return [POSTGRES_BACKEND]


@hookimpl
def stem_outboxes() -> Iterable[OutboxSpec]:
    """The outbox."""
    return [POSTGRES_OUTBOX]
