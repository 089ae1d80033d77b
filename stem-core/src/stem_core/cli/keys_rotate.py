"""``stem keys rotate NEW-ID``: the stages that replace the active key, no message being refused."""

from __future__ import annotations

import argparse
import os

from stem_core.cli.keys import exports, signing
from stem_core.cli.output import add_json_option, print_json, say

__all__ = ["add", "run"]


def add(parser: argparse.ArgumentParser) -> None:
    """The id of the new key."""
    parser.add_argument("id", metavar="NEW-ID", help="the id of the key that is to sign")
    add_json_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print what to set at each stage. The new key is made here and kept nowhere else."""
    stages = signing().rotate(os.environ, arguments.id)
    if arguments.json:
        fields = ("title", "then", "variables")
        print_json([{name: getattr(each, name) for name in fields} for each in stages])
        return 0
    for number, stage in enumerate(stages, 1):
        print(f"# {number}. {stage.title}\n# {stage.then}\n{exports(stage.variables)}\n")
    say("These are secrets, shown this once: put them into a secret store.")
    return 0
