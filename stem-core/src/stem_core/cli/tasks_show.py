"""``stem tasks show ID``."""

from __future__ import annotations

import argparse
from typing import Any

import msgspec

from stem_core.cli.apps import add_app_option, chosen, with_stem
from stem_core.cli.output import add_json_option, print_json, print_pairs, print_text, say
from stem_core.errors import DecodeError, StemError
from stem_core.handles import decode_result
from stem_core.producer import Stem
from stem_core.status import TaskState, TaskStatus

__all__ = ["add", "run"]


def add(parser: argparse.ArgumentParser) -> None:
    """Which task."""
    parser.add_argument("id")
    add_app_option(parser)
    add_json_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print what is recorded; 1 when nothing is."""
    stem = chosen(arguments.app)

    async def work(stem: Stem) -> TaskStatus | None:
        return await stem.handle(arguments.id).status()

    status = with_stem(stem, work)
    if status is None:
        say(f"stem: nothing is recorded of task {arguments.id}: no such id, or its status has expired")
        return 1
    fields = fields_of(stem, status)
    if arguments.json:
        print_json(fields)
        return 0
    error = fields.pop("error", None)
    print_pairs(fields)
    if error:
        print_text(f"\n{error['type']}: {error['message']}")
        if error["traceback"]:
            print_text(error["traceback"].rstrip())
    return 0


def fields_of(stem: Stem, status: TaskStatus) -> dict[str, Any]:
    """A status as plain data, with its result decoded, or why it cannot be."""
    found = {name: getattr(status, name) for name in TaskStatus.__struct_fields__}
    payload = found.pop("payload")
    found["meta"] = dict(status.meta) or None
    found["error"] = msgspec.structs.asdict(status.error) if status.error else None
    found["progress"] = msgspec.structs.asdict(status.progress) if status.progress else None
    if payload is not None and status.state is TaskState.SUCCEEDED:
        try:
            found["result"] = decode_result(stem.wiring, status)
        except (DecodeError, StemError) as error:
            found["result_error"] = f"{len(payload)} bytes that cannot be decoded here: {error}"
    return {name: value for name, value in found.items() if value is not None}
