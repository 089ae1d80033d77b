"""``stem tasks revoke ID``."""

from __future__ import annotations

import argparse

from stem_core.cli.apps import add_app_option, chosen, with_stem
from stem_core.cli.output import add_json_option, print_json
from stem_core.producer import Stem

__all__ = ["add", "run"]


def add(parser: argparse.ArgumentParser) -> None:
    """Which task, and whether to stop it if it runs."""
    parser.add_argument("id")
    parser.add_argument("--terminate", action="store_true", help="also stop it if it runs")
    add_app_option(parser)
    add_json_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Call a task off, and say how far that is known to have worked; 1 when it had ended before."""
    stem = chosen(arguments.app)

    async def work(stem: Stem) -> tuple[bool, str]:
        handle = stem.handle(arguments.id)
        cancelled = await handle.revoke(terminate=arguments.terminate)
        status = await handle.status()
        return cancelled, status.state.value if status else "unknown"

    cancelled, state = with_stem(stem, work)
    late = state in {"succeeded", "failed"}
    if arguments.json:
        print_json({"id": arguments.id, "cancelled": cancelled, "state": state})
    elif cancelled:
        print(f"{arguments.id} is cancelled")
    elif late:
        print(f"{arguments.id} had {state} before; nothing is called off")
    else:
        what = "stop it" if arguments.terminate else "not run it"
        print(f"{arguments.id} is called off (now {state}): the worker that meets it will {what}")
    return 1 if late else 0
