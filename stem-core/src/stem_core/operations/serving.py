"""One worker process: the worker, with its health server, or its line to a supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

from stem_core.operations.collector import Collector, TaskCounts, observed
from stem_core.operations.health import Address, HealthServer
from stem_core.operations.reports import Reports, write
from stem_core.worker import Worker

__all__ = ["REPORT_EVERY", "loop_factory", "serve"]

_log = logging.getLogger("stem.worker")
#: Seconds between the reports of a supervised process; and for which its queue counts are reused.
REPORT_EVERY: Final = 1.0
_QUEUES_EVERY: Final = 5.0


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where it is installed."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def serve(
    worker: Worker, *, health: Address | None = None, line: int | None = None, until_empty: bool = False
) -> None:
    """Run ``worker`` until it is told to stop, then close its Stem.

    :param line: a socket's file descriptor: reports go out on it, and its end means that the supervisor is gone.
    :raises ConfigurationError: something is wired wrongly.
    """
    stem = worker.stem
    async with AsyncExitStack() as stack:
        if health is not None or line is not None:
            counts = TaskCounts(stem.tasks)
            stack.enter_context(stem.pointed_at(observed(stem.wiring, counts)))
            reports = Reports(worker, Collector(worker, counts))
            if health is not None:
                await stack.enter_async_context(HealthServer(health, reports))
            if line is not None:
                await stack.enter_async_context(_reporting(worker, reports, line))
        stack.push_async_callback(stem.close)
        await worker.run(until_empty=until_empty)


@asynccontextmanager
async def _reporting(worker: Worker, reports: Reports, line: int) -> AsyncIterator[None]:
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=line))
    tasks = [
        asyncio.create_task(_report(reports, writer)),
        asyncio.create_task(_stop_when_orphaned(worker, reader)),
    ]
    try:
        yield
    finally:
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        writer.close()


async def _report(reports: Reports, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):  # the supervisor is gone, which the other task sees
        pause = REPORT_EVERY / 20
        while True:
            report = await reports.report(fresh=_QUEUES_EVERY)
            writer.write(write(report))
            await writer.drain()
            if report.ready:  # until it first is, somebody waits for the word
                pause = REPORT_EVERY
            await asyncio.sleep(pause)


async def _stop_when_orphaned(worker: Worker, reader: asyncio.StreamReader) -> Any:
    with contextlib.suppress(OSError):
        while await reader.read(1024):
            pass
    _log.warning("The supervisor is gone; stopping")
    worker.stop()
