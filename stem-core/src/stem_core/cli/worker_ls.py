"""``stem worker ls``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime

from stem_core.cli.apps import add_app_option, chosen, with_stem
from stem_core.cli.output import add_json_option, ago, print_json, print_table
from stem_core.producer import Stem
from stem_core.shared.heartbeats import Heartbeat

__all__ = ["add", "run"]


def add(parser: argparse.ArgumentParser) -> None:
    """Where to look."""
    add_app_option(parser)
    add_json_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print one row a worker that said within the last half minute that it lives; 1 when there is none."""

    async def work(stem: Stem) -> Sequence[Heartbeat]:
        return await stem.control.workers()

    workers = with_stem(chosen(arguments.app), work)
    if arguments.json:
        print_json(workers)
    elif not workers:
        print("no worker lives")
    else:
        now = datetime.now(UTC)
        rows = [
            (
                each.id,
                each.host,
                each.pid,
                each.queues,
                f"{each.in_flight}/{each.concurrency}",
                each.stats.get("succeeded"),
                each.stats.get("failed"),
                ago((now - each.started_at).total_seconds()),
            )
            for each in workers
        ]
        print_table(("worker", "host", "pid", "queues", "busy", "succeeded", "failed", "up"), rows)
    return 0 if workers else 1
