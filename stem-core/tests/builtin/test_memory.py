"""What only memory has: privacy, sharing in the process, threads."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from stem_core.builtin import plugin
from stem_core.builtin.memory import store as stores
from stem_core.envelope import Ack, Message, Settlement
from stem_core.errors import ConfigurationError
from stem_core.ports import AdapterOptions


def opened(url: str, options: AdapterOptions):
    return plugin.MEMORY_BROKER.open(url, options), plugin.MEMORY_BACKEND.open(url, options)


async def test_a_nameless_store_is_shared_by_the_same_options_only(unique_name):
    options = AdapterOptions()
    broker, backend = opened("memory://", options)
    other, _ = opened("memory://", AdapterOptions())
    named, named_backend = opened(f"memory://{unique_name}", AdapterOptions())
    again, again_backend = opened(f"memory://{unique_name}", AdapterOptions())
    elsewhere, _ = opened(f"memory://{unique_name}", AdapterOptions(namespace="another"))
    assert broker.join(backend) is not None
    assert other.join(backend) is None
    assert named.join(again_backend) is not None
    assert again.join(named_backend) is not None
    assert elsewhere.join(named_backend) is None
    assert named.join(object()) is None


async def test_a_store_is_gone_when_nobody_holds_it(unique_name):
    for url in (f"memory://{unique_name}", "memory://"):
        options = AdapterOptions()
        broker, backend = opened(url, options)
        await broker.open()
        await broker.publish([Message(id="a", queue="q", sealed=b"x")])
        store = weakref.ref(backend.store)
        assert store() in stores._STORES.values()  # others come and go there: those of tests before this one
        del broker, backend
        gc.collect()
        assert store() is None


def test_options_in_the_url_are_refused():
    with pytest.raises(ConfigurationError, match="take none"):
        opened("memory://x?max=3", AdapterOptions())


def test_threads_publish_and_drain_together(unique_name):
    """Four producers and four consumers, each with a loop of its own: every message once, none lost."""
    url, options, count = f"memory://{unique_name}", AdapterOptions(), 500
    keeper, _ = opened(url, options)
    lock, got = threading.Lock(), []

    async def produce(name: str) -> None:
        broker, _ = opened(url, options)
        await broker.open()
        for n in range(count):
            await broker.publish([Message(id=f"{name}.{n}", queue="q", sealed=b"x")])

    async def consume() -> None:
        broker, _ = opened(url, options)
        await broker.open()
        while True:
            deliveries = await broker.receive(["q"], limit=3, lease=60, wait=20)
            assert all(await broker.settle([Settlement(each.receipt, Ack()) for each in deliveries]))
            with lock:
                got.extend(each.message.id for each in deliveries if each.message.id != "stop")
            if not deliveries or deliveries[-1].message.id == "stop":
                break

    with ThreadPoolExecutor(8) as pool:
        consumers = [pool.submit(asyncio.run, consume()) for _ in range(4)]
        for producer in [pool.submit(asyncio.run, produce(name)) for name in "abcd"]:
            producer.result(60)
        for _ in consumers:
            asyncio.run(_stop(url, options, len(got)))
        while not all(consumer.done() for consumer in consumers):
            asyncio.run(_stop(url, options, len(got)))
        for consumer in consumers:
            consumer.result(60)
    assert len(got) == len(set(got)) == 4 * count
    del keeper


async def _stop(url: str, options: AdapterOptions, seen: int) -> None:
    broker, _ = opened(url, options)
    await broker.open()
    await broker.publish([Message(id="stop", queue="q", sealed=b"")])
    await asyncio.sleep(0.005)
