"""``stem dlq replay``."""

from __future__ import annotations

import argparse

from stem_core.cli.apps import chosen, with_stem
from stem_core.cli.dlq import add_filters, checked_limit, filters
from stem_core.cli.output import print_json, print_table, say
from stem_core.cli.values import whole
from stem_core.dead_letters import Replayed
from stem_core.errors import ConfigurationError
from stem_core.producer import Stem

__all__ = ["add", "run"]


def add(parser: argparse.ArgumentParser) -> None:
    """Which dead letters; some filter or ``--all`` must say so."""
    add_filters(parser)
    parser.add_argument("--all", action="store_true", help="all of the queue")
    parser.add_argument("--limit", type=whole, help="at most this many, the oldest")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")


def run(arguments: argparse.Namespace) -> int:
    """Send dead letters again; 1 when ids were named that are no dead letters, or one has expired."""
    limit = checked_limit(arguments.limit)
    if not (arguments.all or arguments.ids or arguments.reason or arguments.before or limit):
        raise ConfigurationError("say which: --id, --reason, --before, --limit, or --all")

    async def work(stem: Stem) -> Replayed:
        return await stem.dead_letters.replay(
            arguments.queue, **filters(arguments), limit=limit, dry_run=arguments.dry_run
        )

    done = with_stem(chosen(arguments.app), work)
    found = {id for id, _ in done} | set(done.expired)
    missing = [id for id in arguments.ids or () if id not in found] if limit is None else []
    if arguments.json:
        print_json(
            {
                "dry_run": arguments.dry_run,
                "replayed": [{"id": id, "generation": generation} for id, generation in done],
                "expired": done.expired,
                "grouped": done.grouped,
                "missing": missing,
            }
        )
    else:
        _print(arguments, done, missing)
    return 1 if missing or done.expired else 0


def _print(arguments: argparse.Namespace, done: Replayed, missing: list[str]) -> None:
    if done:
        print_table(("id", "generation"), done)
    would = "would be sent again" if arguments.dry_run else "sent again"
    print(f"{len(done)} {would}")
    for id in done.expired:
        say(f"{id} has expired: it would be cancelled before it ran, so it stays")
    for id in done.grouped:
        say(f"{id} is a member of a group: it runs alone, and what was counted in its group stands")
    for id in missing:
        say(f"{id} is no dead letter of queue {arguments.queue!r}")
