"""``stem dlq purge``."""

from __future__ import annotations

import argparse

from stem_core.cli.apps import chosen, with_stem
from stem_core.cli.dlq import add_filters, checked_limit, filters
from stem_core.cli.output import print_json
from stem_core.cli.values import whole
from stem_core.errors import ConfigurationError
from stem_core.producer import Stem

__all__ = ["add", "run"]


def add(parser: argparse.ArgumentParser) -> None:
    """Which dead letters; some filter or ``--all`` must say so."""
    add_filters(parser)
    parser.add_argument("--all", action="store_true", help="all of the queue")
    parser.add_argument("--limit", type=whole, help="at most this many, the oldest")
    parser.add_argument("--keep", type=whole, default=0, help="keep the newest this many")
    parser.add_argument("--dry-run", action="store_true", help="only say how many there are")


def run(arguments: argparse.Namespace) -> int:
    """Throw dead letters away."""
    limit = checked_limit(arguments.limit)
    chosen_some = arguments.ids or arguments.reason or arguments.before or limit or arguments.keep
    if not (arguments.all or chosen_some):
        raise ConfigurationError("say which: --id, --reason, --before, --limit, --keep, or --all")
    if arguments.keep < 0:
        raise ConfigurationError(f"--keep {arguments.keep}: it cannot be negative")

    async def work(stem: Stem) -> int:
        letters = stem.dead_letters
        if not arguments.dry_run:
            return await letters.purge(
                arguments.queue, **filters(arguments), limit=limit, keep=arguments.keep
            )
        keep: int = arguments.keep
        there = max(0, await letters.count(arguments.queue, **filters(arguments)) - keep)
        return there if limit is None else min(there, limit)

    count = with_stem(chosen(arguments.app), work)
    if arguments.json:
        print_json({"dry_run": arguments.dry_run, "purged": count})
    else:
        print(f"{count} {'would be thrown away' if arguments.dry_run else 'thrown away'}")
    return 0
