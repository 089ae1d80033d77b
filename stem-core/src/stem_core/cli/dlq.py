"""What the commands ``stem dlq ...`` share: which dead letters are meant."""

from __future__ import annotations

import argparse
from typing import Any

from stem_core.cli.apps import add_app_option
from stem_core.cli.output import add_json_option
from stem_core.cli.values import moment
from stem_core.envelope import DeadMessage
from stem_core.errors import ConfigurationError

__all__ = ["add_filters", "filters", "summary"]


def add_filters(parser: argparse.ArgumentParser) -> None:
    """By id, reason and age."""
    parser.add_argument("--queue", default="default", help="of this queue (default: 'default')")
    parser.add_argument("--id", action="append", metavar="ID", dest="ids", help="this one; may be repeated")
    parser.add_argument("--reason", help="put aside for this reason, such as max-retries-exhausted")
    parser.add_argument(
        "--before", type=moment, help="put aside before: an instant, or how long ago (2h, 7d)"
    )
    add_app_option(parser)
    add_json_option(parser)


def filters(arguments: argparse.Namespace) -> dict[str, Any]:
    """The filters that were given, as keywords of ``stem.dead_letters``."""
    return {"ids": arguments.ids, "reason": arguments.reason, "before": arguments.before}


def checked_limit(limit: int | None) -> int | None:
    """``--limit``.

    :raises ConfigurationError: it is not positive.
    """
    if limit is not None and limit < 1:
        raise ConfigurationError(f"--limit {limit}: it must be at least 1")
    return limit


def summary(dead: DeadMessage) -> dict[str, Any]:
    """A dead letter without its bytes."""
    return {
        "id": dead.message.id,
        "queue": dead.message.queue,
        "reason": dead.reason,
        "dead_at": dead.dead_at,
        "generation": dead.generation,
        "attempt": dead.attempt,
        "detail": dead.detail,
    }
