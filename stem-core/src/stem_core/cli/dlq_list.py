"""``stem dlq list``."""

from __future__ import annotations

import argparse

from stem_core.cli.apps import chosen, with_stem
from stem_core.cli.dlq import add_filters, checked_limit, filters, summary
from stem_core.cli.output import print_json, print_table, say
from stem_core.cli.values import whole
from stem_core.envelope import DeadPage
from stem_core.producer import Stem

__all__ = ["add", "run"]


def add(parser: argparse.ArgumentParser) -> None:
    """Which dead letters, and how many."""
    add_filters(parser)
    parser.add_argument("--limit", type=whole, default=100, help="at most this many (default 100)")
    parser.add_argument("--cursor", help="go on from where the last list ended")


def run(arguments: argparse.Namespace) -> int:
    """Print one row a dead letter, oldest first."""
    limit = checked_limit(arguments.limit) or 100

    async def work(stem: Stem) -> DeadPage:
        return await stem.dead_letters.list(
            arguments.queue, **filters(arguments), limit=limit, cursor=arguments.cursor
        )

    page = with_stem(chosen(arguments.app), work)
    if arguments.json:
        print_json({"items": [summary(each) for each in page.items], "cursor": page.cursor})
        return 0
    rows = [
        (each.message.id, each.reason, each.dead_at, each.attempt, each.generation, _last_line(each.detail))
        for each in page.items
    ]
    if not rows:
        print(f"no such dead letters in queue {arguments.queue!r}")
        return 0
    print_table(("id", "reason", "dead since", "attempt", "generation", "detail"), rows)
    if page.cursor is not None:
        say(f"there are more: --cursor {page.cursor}")
    return 0


def _last_line(detail: str) -> str:
    lines = detail.strip().splitlines() or [""]
    return lines[-1][:80]
