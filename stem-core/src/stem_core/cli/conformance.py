"""``stem conformance URL``: the laws of the contract, on an installed adapter."""

from __future__ import annotations

import argparse
import importlib
import importlib.util

from stem_core.errors import ConfigurationError

__all__ = ["PASSES_ON", "add", "run"]

#: Its words are the suite's to understand, --help too.
PASSES_ON = True


def add(parser: argparse.ArgumentParser) -> None:
    """Everything goes to the suite."""
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="URL ...", help="an adapter's URL; --json")


def run(arguments: argparse.Namespace) -> int:
    """Run the suite; 0 when every declared law is kept."""
    missing = [name for name in ("hypothesis", "pytest") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            f"the conformance suite needs {' and '.join(missing)}: pip install 'stem-core[contracts]'"
        )
    if importlib.util.find_spec("stem_core.contracts.conformance") is None:
        raise ConfigurationError("this installation of stem-core has no conformance suite; install it again")
    suite = importlib.import_module("stem_core.contracts.conformance")
    status: int = suite.main(arguments.words)
    return status
