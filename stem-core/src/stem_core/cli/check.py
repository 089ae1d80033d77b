"""``stem check app:stem``: for CI. Fails when a task asks for what the configured adapters cannot do."""

from __future__ import annotations

import argparse

from stem_core.cli.apps import load
from stem_core.cli.output import add_json_option, print_json, print_table

__all__ = ["add", "run"]


def add(parser: argparse.ArgumentParser) -> None:
    """The application."""
    parser.add_argument("app", metavar="MODULE:STEM")
    add_json_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print what is adjusted or refused; 1 when there is something."""
    stem = load(arguments.app)
    findings = stem.check()
    if arguments.json:
        print_json({"tasks": len(stem.tasks), "findings": findings})
        return 1 if findings else 0
    if not findings:
        print(f"{len(stem.tasks)} tasks: the adapters can do everything they ask for")
        return 0
    rows = [(each.task, "-", "-", each.error) for each in findings if each.error]
    for finding in findings:
        rows += [
            (finding.task, f"{each.option}={each.requested}", each.effective, each.reason)
            for each in finding.adjustments
        ]
    print_table(("task", "asks for", "gets", "why"), rows)
    return 1
