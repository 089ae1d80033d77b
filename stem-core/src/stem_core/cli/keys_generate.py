"""``stem keys generate``: the one command that prints secrets, since it made them and keeps them nowhere."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime

from stem_core.cli.keys import exports, signing
from stem_core.cli.output import add_json_option, print_json, say

__all__ = ["add", "run"]


def add(parser: argparse.ArgumentParser) -> None:
    """Which algorithm, and the key's id."""
    parser.add_argument("--algorithm", choices=("hmac-sha256", "ed25519"), default="hmac-sha256")
    parser.add_argument("--id", help="the key's id (default: k and today's date)")
    add_json_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the variables of a new key."""
    id = arguments.id or f"k{datetime.now(UTC):%Y%m%d}"
    variables = signing().generate(arguments.algorithm, id)
    if arguments.json:
        print_json(variables)
    else:
        print(exports(variables))
        say("These are secrets, shown this once: put them into a secret store.")
    return 0
