"""``stem keys list``."""

from __future__ import annotations

import argparse
import os

from stem_core.cli.keys import signing
from stem_core.cli.output import add_json_option, print_json, print_table

__all__ = ["add", "run"]


def add(parser: argparse.ArgumentParser) -> None:
    """Only ``--json``."""
    add_json_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the keys of ``STEM_SIGNING_*``."""
    found = signing().list_keys(os.environ)
    if arguments.json:
        print_json(found)
        return 0
    rows = [
        (each.id, each.algorithm, each.use, each.active, each.queues or "all", each.tasks or "all")
        for each in found
    ]
    print_table(("key", "algorithm", "use", "active", "queues", "tasks"), rows)
    return 0
