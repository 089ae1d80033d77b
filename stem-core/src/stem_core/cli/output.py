"""Tables for people, JSON for programs.

Names, headers and errors come from whoever may enqueue, so text is printed with its control characters written
out: it may neither colour nor steer the terminal of who looks at it.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

__all__ = [
    "add_json_option",
    "ago",
    "print_json",
    "print_pairs",
    "print_table",
    "print_text",
    "say",
    "shown",
    "written_out",
]


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """``--json``."""
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def print_json(value: Any) -> None:
    """``value`` as indented JSON; what JSON has no form for is shown as text."""
    text = msgspec.json.format(msgspec.json.encode(value, enc_hook=_plain), indent=2)
    sys.stdout.write(text.decode() + "\n")


def print_table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Columns as wide as their widest cell; numbers to the right."""
    texts = [[shown(cell).replace("\n", "\\n") for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in [list(headers), *texts]) for column in range(len(headers))]
    numeric = [
        bool(rows) and all(isinstance(row[column], int | float) or row[column] is None for row in rows)
        for column in range(len(headers))
    ]
    for row in [list(headers), *texts]:
        cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ]
        print("  ".join(cells).rstrip())


def print_pairs(pairs: Mapping[str, Any]) -> None:
    """Names and values, one a line; what is None is left out."""
    present = {name: value for name, value in pairs.items() if value is not None}
    width = max(map(len, present), default=0)
    for name, value in present.items():
        first, *more = shown(value).splitlines() or [""]
        print(f"{name.ljust(width)}  {first}".rstrip())
        for line in more:
            print(f"{' ' * width}  {line}".rstrip())


def print_text(text: str) -> None:
    """Text of several lines, as an error's traceback is."""
    print(written_out(text))


def say(message: str) -> None:
    """A remark for people, kept apart from the output."""
    print(written_out(message), file=sys.stderr)


def written_out(text: str) -> str:
    """``text`` with what is neither printable nor white space written as Python writes it."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each in "\n\t" else each.encode("unicode_escape").decode("ascii")
        for each in text
    )


def shown(value: Any) -> str:
    """One value as people read it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, datetime):
        return value.astimezone().isoformat(sep=" ", timespec="milliseconds")
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={shown(each)}" for name, each in value.items()) or "-"
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value)) or "-"
    return written_out(str(value))


def ago(seconds: float | None) -> str:
    """A duration in the unit that suits it."""
    if seconds is None:
        return "-"
    for unit, size in (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s"


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value)
