"""Adapters on a namespace of their own, and what tests of them share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from stem_core.ports.specs import AdapterOptions
from stem_redis.backend import RedisBackend
from stem_redis.broker import RedisBroker
from stem_redis.plugin import REDIS_BACKEND, REDIS_BROKER


class Adapters:
    """Opens adapters on one namespace; the fixture closes them."""

    def __init__(self, url: str, namespace: str, stack: AsyncExitStack) -> None:
        self.url = url
        self.namespace = namespace
        self._stack = stack

    async def broker(self, url: str | None = None, **options: Any) -> RedisBroker:
        return await self._open(RedisBroker, REDIS_BROKER, url, options)

    async def backend(self, url: str | None = None, **options: Any) -> RedisBackend:
        return await self._open(RedisBackend, REDIS_BACKEND, url, options)

    async def _open(self, kind: type, spec: Any, url: str | None, options: dict[str, Any]) -> Any:
        adapter = spec.open(url or self.url, AdapterOptions(**{"namespace": self.namespace, **options}))
        assert isinstance(adapter, kind)
        self._stack.push_async_callback(adapter.close)
        await adapter.open()
        return adapter


@pytest.fixture
async def adapters(redis_url: str, unique_name: str) -> AsyncIterator[Adapters]:
    async with AsyncExitStack() as stack:
        yield Adapters(redis_url, unique_name, stack)


@pytest.fixture
async def broker(adapters: Adapters) -> RedisBroker:
    return await adapters.broker()


@pytest.fixture
async def backend(adapters: Adapters) -> RedisBackend:
    return await adapters.backend()


@pytest.fixture
def eventually() -> Callable[[Callable[[], Awaitable[object]]], Awaitable[None]]:
    """Wait until a condition holds; fails after ten seconds."""

    async def wait(condition: Callable[[], Awaitable[object]], seconds: float = 10.0) -> None:
        async with asyncio.timeout(seconds):
            while not await condition():
                await asyncio.sleep(0.01)

    return wait
