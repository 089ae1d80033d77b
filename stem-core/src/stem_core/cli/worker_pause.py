"""``stem worker pause QUEUE``."""

from __future__ import annotations

import argparse

from stem_core.cli.apps import add_app_option, chosen, with_stem
from stem_core.cli.output import add_json_option, print_json
from stem_core.producer import Stem

__all__ = ["add", "run"]


def add(parser: argparse.ArgumentParser) -> None:
    """Which queue."""
    parser.add_argument("queue")
    parser.add_argument("--reason", default="", help="shown to whoever asks what is paused")
    add_app_option(parser)
    add_json_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Hand out nothing more of a queue, on all workers, until it is resumed."""

    async def work(stem: Stem) -> None:
        await stem.control.pause(arguments.queue, reason=arguments.reason)

    with_stem(chosen(arguments.app), work)
    if arguments.json:
        print_json({"queue": arguments.queue, "paused": True})
    else:
        print(f"{arguments.queue} is paused; 'stem worker resume {arguments.queue}' undoes it")
    return 0
