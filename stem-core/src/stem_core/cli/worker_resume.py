"""``stem worker resume QUEUE``."""

from __future__ import annotations

import argparse

from stem_core.cli.apps import add_app_option, chosen, with_stem
from stem_core.cli.output import add_json_option, print_json
from stem_core.producer import Stem

__all__ = ["add", "run"]


def add(parser: argparse.ArgumentParser) -> None:
    """Which queue."""
    parser.add_argument("queue")
    add_app_option(parser)
    add_json_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Hand a paused queue out again."""

    async def work(stem: Stem) -> bool:
        return await stem.control.resume(arguments.queue)

    was = with_stem(chosen(arguments.app), work)
    if arguments.json:
        print_json({"queue": arguments.queue, "was_paused": was})
    else:
        print(f"{arguments.queue} {'goes on' if was else 'was not paused'}")
    return 0
