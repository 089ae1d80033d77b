"""``stem explain app:stem NAME --delay 2h --priority 9``: nothing is published, nothing is connected to."""

from __future__ import annotations

import argparse

from stem_core.cli.apps import chosen
from stem_core.cli.output import add_json_option, print_json, print_pairs, print_table
from stem_core.cli.values import add_option_flags, options_of
from stem_core.errors import ConfigurationError

__all__ = ["add", "run"]


def add(parser: argparse.ArgumentParser) -> None:
    """The application (or none, for ``STEM_*``), the task's name, and options."""
    parser.add_argument("target", nargs="+", metavar="[MODULE:STEM] NAME")
    add_option_flags(parser)
    add_json_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the plan of one call."""
    *app, name = arguments.target
    if len(app) > 1:
        raise ConfigurationError(f"name one application and one task, not {' '.join(arguments.target)!r}")
    stem = chosen(app[0] if app else None)
    try:
        found = stem.explain(name, **options_of(arguments))
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{name}: {error}") from error
    if arguments.json:
        print_json(found)
        return 0
    print_pairs(
        {
            "task": found.name
            if found.name in stem.tasks
            else f"{found.name} (its handler is not known here)",
            "queue": found.queue,
            "priority": found.priority,
            "route": found.route or None,
            "arguments": found.encoder,
            "result": found.result_encoder,
            "signed": found.signed,
            "round trips": f"at most {found.round_trips}",
        }
    )
    if found.options:
        print()
        rows = [
            (
                each.option,
                each.requested,
                each.effective,
                "adjusted" if each.reason else "as asked",
                each.reason or "-",
            )
            for each in found.options
        ]
        print_table(("option", "asked", "effective", "", "why"), rows)
    return 0
