"""``stem queues [--watch]``."""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import Any, Final

from stem_core.cli.apps import add_app_option, chosen, with_stem
from stem_core.cli.output import add_json_option, ago, print_json, print_table, say
from stem_core.cli.values import interval
from stem_core.ports.broker import QueueStats
from stem_core.producer import Stem
from stem_core.shared.heartbeats import Heartbeats
from stem_core.shared.pauses import Pause, Pauses
from stem_core.wiring import Wiring

__all__ = ["add", "run"]

#: What is said of a list that nobody asked for by name.
_NOTE: Final = (
    "The queues of the application's tasks and routes, of workers that live, and paused ones. A broker does not list "
    "its queues: to see others, name them."
)


def add(parser: argparse.ArgumentParser) -> None:
    """Which queues, and whether to go on looking."""
    parser.add_argument(
        "queues",
        nargs="*",
        metavar="QUEUE",
        help="default: those of the application's tasks and routes, of workers that live, and paused ones",
    )
    parser.add_argument("--watch", action="store_true", help="look again and again, until interrupted")
    parser.add_argument("--every", type=interval, default=2.0, help="how often (default 2s)")
    add_app_option(parser)
    add_json_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print one row a queue."""
    stem = chosen(arguments.app, arguments.queues)

    async def work(stem: Stem) -> None:
        note = not arguments.queues and not arguments.json
        while True:
            names = arguments.queues or await known_queues(stem)
            counts, paused = await stem.run(lambda wiring: _looked_at(wiring, names))  # noqa: B023
            _print(counts, paused, as_json=arguments.json, clear=arguments.watch)
            if note:
                say(_NOTE)
                note = sys.stdout.isatty()  # where the next table wipes it out
            if not arguments.watch:
                return
            await asyncio.sleep(arguments.every)

    with_stem(stem, work)
    return 0


async def known_queues(stem: Stem) -> list[str]:
    """The queues that somebody is known to use or to have paused; no port lists those of a broker."""
    found = {*stem.routing.named_queues, *(task.options.queue for task in stem.tasks.values())}

    async def ask(wiring: Wiring) -> set[str]:
        backend = wiring.backend
        if backend is None or not backend.capabilities.state:
            return set()
        alive = await Heartbeats(backend).alive()
        return {*(queue for each in alive for queue in each.queues), *await Pauses(backend).paused()}

    return sorted(found | await stem.run(ask))


async def _looked_at(wiring: Wiring, names: list[str]) -> tuple[dict[str, QueueStats], dict[str, Pause]]:
    """What is in these queues, and which queues are paused."""
    backend = wiring.backend
    shared = backend is not None and backend.capabilities.state
    paused = await Pauses(backend).paused() if backend is not None and shared else {}
    return {name: await wiring.broker.stats(name) for name in names}, paused


def _print(counts: dict[str, QueueStats], paused: dict[str, Pause], *, as_json: bool, clear: bool) -> None:
    if as_json:
        print_json(
            [{"queue": name, **_fields(stats), "paused": name in paused} for name, stats in counts.items()]
        )
    else:
        if clear and sys.stdout.isatty():
            print("\x1b[2J\x1b[H", end="")
        rows = [
            (
                name,
                stats.ready,
                stats.scheduled,
                stats.leased,
                stats.dead,
                ago(stats.oldest_ready_age),
                _pause(paused.get(name)),
            )
            for name, stats in counts.items()
        ]
        print_table(("queue", "ready", "scheduled", "leased", "dead", "oldest ready", ""), rows)
    sys.stdout.flush()


def _pause(pause: Pause | None) -> str:
    if pause is None:
        return ""
    return f"paused: {pause.reason}" if pause.reason else "paused"


def _fields(stats: QueueStats) -> dict[str, Any]:
    names = ("ready", "scheduled", "leased", "dead", "oldest_ready_age")
    return {name: getattr(stats, name) for name in names}
