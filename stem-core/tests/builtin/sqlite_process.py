"""What other processes do to a SQLite file in the tests: ``python sqlite_process.py <what> <url> ...``."""

from __future__ import annotations

import asyncio
import sys

from stem_core.builtin import plugin
from stem_core.envelope import Ack, Message, Settlement
from stem_core.ports import AdapterOptions, Backend, Broker
from stem_core.status import StatusUpdate, TaskState


async def opened(url: str) -> tuple[Broker, Backend]:
    options = AdapterOptions()
    broker, backend = plugin.SQLITE_BROKER.open(url, options), plugin.SQLITE_BACKEND.open(url, options)
    await broker.open()
    await backend.open()
    return broker, backend


async def drain(url: str, total: str) -> None:
    """Take and ack until ``total`` messages of the file have a result; print the ids this process had."""
    broker, backend = await opened(url)
    while True:
        deliveries = await broker.receive(["q"], limit=7, lease=60, wait=0.05)
        for delivery in deliveries:
            print(delivery.message.id, delivery.deliveries)
        await backend.record(
            [StatusUpdate(id=each.message.id, state=TaskState.SUCCEEDED) for each in deliveries]
        )
        assert all(await broker.settle([Settlement(each.receipt, Ack()) for each in deliveries]))
        stats = await broker.stats("q")
        if not deliveries and not stats.ready and await backend.wait(f"m{int(total) - 1}", 0) is not None:
            break
    await broker.close()
    await backend.close()


async def produce(url: str, name: str, count: str) -> None:
    """Publish ``count`` messages one by one, many at a time."""
    broker, backend = await opened(url)
    answers = await asyncio.gather(
        *(broker.publish([Message(id=f"{name}.{n}", queue="q", sealed=b"x")]) for n in range(int(count)))
    )
    assert all(answer == [True] for answer in answers)
    await broker.close()
    await backend.close()


async def finish(url: str, id: str) -> None:
    """Publish a message, and record that ``id`` succeeded, as soon as a line arrives on standard input."""
    broker, backend = await opened(url)
    print("ready", flush=True)
    sys.stdin.readline()
    await broker.publish([Message(id="from afar", queue="q", sealed=b"x")])
    await backend.record([StatusUpdate(id=id, state=TaskState.SUCCEEDED, payload=b"1")])
    await broker.broadcast("c", b"hello")
    await broker.close()
    await backend.close()


if __name__ == "__main__":
    asyncio.run({"drain": drain, "produce": produce, "finish": finish}[sys.argv[1]](*sys.argv[2:]))
