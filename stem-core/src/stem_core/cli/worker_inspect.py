"""``stem worker inspect``."""

from __future__ import annotations

import argparse

from stem_core.cli.control import add_options, ask

__all__ = ["add", "run"]


def add(parser: argparse.ArgumentParser) -> None:
    """Which workers."""
    add_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """What workers are running, one row each."""
    return ask(
        arguments, lambda control: control.inspect(workers=arguments.worker, timeout=arguments.timeout)
    )
