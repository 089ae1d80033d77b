"""``stem worker shutdown``."""

from __future__ import annotations

import argparse

from stem_core.cli.control import add_options, ask

__all__ = ["add", "run"]


def add(parser: argparse.ArgumentParser) -> None:
    """Which workers, and how."""
    parser.add_argument(
        "--mode",
        choices=("warm", "soft", "hard"),
        default="warm",
        help="let running tasks end (default), for the drain timeout at most, or give them back at once",
    )
    add_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Stop workers."""
    return ask(
        arguments,
        lambda control: control.shutdown(arguments.mode, workers=arguments.worker, timeout=arguments.timeout),
    )
