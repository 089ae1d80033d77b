"""``stem plugins``: what is installed, what it can do, and what is broken."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from typing import Any

from stem_core.cli.output import add_json_option, print_json, print_table, shown
from stem_core.plugins import Catalogue, discover

__all__ = ["add", "capability_rows", "run"]

_KINDS = ("brokers", "backends", "outboxes", "encoders", "signers")


def add(parser: argparse.ArgumentParser) -> None:
    """Only ``--json``."""
    add_json_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the catalogue; 1 when a plugin is broken."""
    catalogue = discover()
    if arguments.json:
        print_json(as_data(catalogue))
    else:
        _print(catalogue)
    return 1 if catalogue.broken else 0


def as_data(catalogue: Catalogue) -> dict[str, Any]:
    """The catalogue as plain data."""
    found: dict[str, Any] = {
        "plugins": catalogue.plugins,
        "broken": catalogue.broken,
        "disabled": catalogue.disabled,
    }
    for kind in _KINDS:
        specs: Mapping[str, Any] = getattr(catalogue, kind)
        found[kind] = {key: _spec(spec) for key, spec in sorted(specs.items())}
    return found


def capability_rows(specs: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """A row for each capability, a column for each spec; first the names."""
    names = [each.name for each in dataclasses.fields(next(iter(specs.values())).capabilities)]
    return [(name, *(shown(getattr(spec.capabilities, name)) for spec in specs.values())) for name in names]


def _spec(spec: Any) -> dict[str, Any]:
    left_out = {"open", "doctor"}
    names = [each.name for each in dataclasses.fields(spec) if each.name not in left_out]
    return {name: getattr(spec, name) for name in names}


def _print(catalogue: Catalogue) -> None:
    rows = [
        (
            each.name,
            f"{each.distribution} {each.version}".strip(),
            ", ".join(each.provides) or "provides nothing yet",
        )
        for each in catalogue.plugins
    ]
    rows += [
        (each.name, f"{each.distribution} {each.version}", f"BROKEN: {each.cause}")
        for each in catalogue.broken
    ]
    rows += [(name, "-", "disabled by STEM_PLUGINS or STEM_DISABLE_PLUGINS") for name in catalogue.disabled]
    print_table(("plugin", "from", "provides"), rows)
    for title, specs in (("broker", catalogue.brokers), ("backend", catalogue.backends)):
        by_name = {each.name: each for each in specs.values()}
        if by_name:
            print()
            print_table((f"{title} can", *by_name), capability_rows(by_name))
    unavailable = [
        (id, spec.unavailable)
        for specs in (catalogue.encoders, catalogue.signers)
        for id, spec in specs.items()
        if spec.unavailable
    ]
    if unavailable:
        print()
        print_table(("not usable", "until"), unavailable)
