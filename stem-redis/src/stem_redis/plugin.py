"""What this package offers to Stem. Describes only: the driver is imported when an adapter is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stem_core.hookspecs import hookimpl
from stem_core.ports.capabilities import BackendCapabilities, BrokerCapabilities
from stem_core.ports.specs import AdapterOptions, BackendSpec, BrokerSpec, Finding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stem_core.ports import Backend, Broker

__all__ = ["REDIS_BACKEND", "REDIS_BROKER", "SCHEMES", "stem_backends", "stem_brokers"]

SCHEMES: Final = ("redis", "rediss", "unix")
_MEBIBYTE: Final = 1024 * 1024


def _open_broker(url: str, options: AdapterOptions) -> Broker:
    from stem_redis.broker import RedisBroker

    return RedisBroker(url, options, REDIS_BROKER.capabilities)


def _open_backend(url: str, options: AdapterOptions) -> Backend:
    from stem_redis.backend import RedisBackend

    return RedisBackend(url, options, REDIS_BACKEND.capabilities)


async def _doctor(url: str, options: AdapterOptions) -> Sequence[Finding]:
    from stem_redis.doctor import report

    return await report(url, options)


REDIS_BROKER: Final = BrokerSpec(
    name="redis",
    schemes=SCHEMES,
    contract=1,
    capabilities=BrokerCapabilities(
        delay=True,
        priority_levels=10,
        global_priority=True,
        fifo=True,
        dead_letters=True,
        broadcast=True,
        durable=True,
        multi_process=True,
        max_size=32 * _MEBIBYTE,
        resolution=0.03,
        once_ttl=True,
    ),
    summary="Streams and fenced scripts on Redis 7 or Valkey; durable as its append-only file is",
    open=_open_broker,
    doctor=_doctor,
)

REDIS_BACKEND: Final = BackendSpec(
    name="redis",
    schemes=SCHEMES,
    contract=1,
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
    summary="Statuses, groups, shared state and limits on Redis 7 or Valkey",
    open=_open_backend,
    doctor=_doctor,
)


@hookimpl
def stem_brokers() -> list[BrokerSpec]:
    return [REDIS_BROKER]


@hookimpl
def stem_backends() -> list[BackendSpec]:
    return [REDIS_BACKEND]
