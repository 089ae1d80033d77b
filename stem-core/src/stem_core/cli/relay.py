"""``stem relay``: publish what transactions wrote into the outbox, once they have committed."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random

from stem_core.cli.apps import chosen
from stem_core.cli.output import say
from stem_core.cli.values import interval, whole
from stem_core.errors import ConfigurationError, StemError
from stem_core.ports.outbox import Outbox
from stem_core.producer import Stem
from stem_core.wiring import Wiring
from stem_core.worker.signals import StopSignals

__all__ = ["add", "run"]

_log = logging.getLogger("stem.relay")
_LONGEST_PAUSE = 30.0


def add(parser: argparse.ArgumentParser) -> None:
    """The application (or none, for ``STEM_*``), and how often to look."""
    parser.add_argument("app", nargs="?", metavar="MODULE:STEM", help="default: STEM_* variables say")
    parser.add_argument("--outbox", metavar="URL", help="where the outbox is, unless the Stem says")
    parser.add_argument("--once", action="store_true", help="relay what is there, and end")
    parser.add_argument(
        "--every", type=interval, default=1.0, help="look this often when it is empty (default 1s)"
    )
    parser.add_argument("--batch", type=whole, default=100, help="messages at once (default 100)")


def run(arguments: argparse.Namespace) -> int:
    """Relay until stopped. Several relays may run at once and share the work."""
    from stem_core.worker import logs

    logs.configure("text", os.environ.get("STEM_LOG_LEVEL") or "info")
    if arguments.batch < 1:
        raise ConfigurationError(f"--batch {arguments.batch}: it must be at least 1")
    stem = _stem(arguments)
    if stem.wiring.outbox is None:
        raise ConfigurationError("this Stem has no outbox; give Stem(..., outbox=URL), or --outbox URL")
    count = asyncio.run(_relay(stem, arguments))
    say(f"{count} messages relayed")
    return 0


def _stem(arguments: argparse.Namespace) -> Stem:
    if arguments.outbox is None:
        return chosen(arguments.app)
    if arguments.app is not None:
        raise ConfigurationError(
            "--outbox goes with STEM_* variables; an application's Stem says where its outbox is"
        )
    chosen(None)  # says what is missing
    return Stem.from_env(outbox=arguments.outbox)


async def _relay(stem: Stem, arguments: argparse.Namespace) -> int:
    stopping = asyncio.Event()
    total, pause = 0, arguments.every
    with StopSignals(lambda _: stopping.set()):
        async with stem:
            while not stopping.is_set():
                try:
                    count = await stem.run(lambda wiring: _some(wiring, arguments.batch))
                    pause = arguments.every
                except (StemError, OSError) as error:
                    if arguments.once:
                        raise
                    _log.warning("Relaying failed (%s); what was not confirmed stays", error)
                    count, pause = 0, min(pause * 2, _LONGEST_PAUSE)
                total += count
                if count < arguments.batch:
                    if arguments.once:
                        break
                    await _wait(stopping, pause if pause == arguments.every else random.uniform(0, pause))
    return total


async def _some(wiring: Wiring, batch: int) -> int:
    outbox: Outbox | None = wiring.outbox
    assert outbox is not None
    return await outbox.relay(wiring.broker, limit=batch)


async def _wait(stopping: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stopping.wait()
    except TimeoutError:
        return
