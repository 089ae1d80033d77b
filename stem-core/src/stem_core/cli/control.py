"""What the commands ``stem worker ls|ping|inspect|stats|shutdown`` share: which workers, and their replies."""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable, Sequence

from stem_core.cli.apps import add_app_option, chosen, with_stem
from stem_core.cli.output import add_json_option, print_json, print_table
from stem_core.cli.values import duration
from stem_core.control import Control
from stem_core.producer import Stem
from stem_core.shared.commands import Reply

__all__ = ["add_options", "ask"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which workers, and how long to wait for them."""
    parser.add_argument(
        "--worker", action="append", default=[], metavar="ID", help="only this one (see 'stem worker ls')"
    )
    parser.add_argument(
        "--timeout", type=duration, default=5.0, help="how long to wait for replies (default 5s)"
    )
    add_app_option(parser)
    add_json_option(parser)


def ask(arguments: argparse.Namespace, question: Callable[[Control], Awaitable[Sequence[Reply]]]) -> int:
    """Ask, and print what each worker answered; 1 when one that was named, or all, kept silent."""

    async def work(stem: Stem) -> Sequence[Reply]:
        return await question(stem.control)

    replies = with_stem(chosen(arguments.app), work)
    silent = sorted(set(arguments.worker) - {each.worker for each in replies})
    if arguments.json:
        print_json({"replies": replies, "silent": silent})
    else:
        if replies:
            print_table(("worker", "answer"), [(each.worker, each.error or each.answer) for each in replies])
        for each in silent:
            print(f"{each} did not answer")
        if not replies and not silent:
            print("no worker answered")
    return 1 if silent or not replies or any(each.error for each in replies) else 0
