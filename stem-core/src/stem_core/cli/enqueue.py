"""``stem enqueue app:stem NAME --args JSON``."""

from __future__ import annotations

import argparse
import os

from stem_core.cli.apps import chosen, with_stem
from stem_core.cli.output import add_json_option, print_json, say
from stem_core.cli.values import add_option_flags, assignment, duration, json_value, options_of
from stem_core.errors import ConfigurationError
from stem_core.handles import TaskHandle
from stem_core.options import TaskEnqueueOptions
from stem_core.producer import Stem

__all__ = ["add", "run"]


def add(parser: argparse.ArgumentParser) -> None:
    """The application (or none, for ``STEM_*``), the task's name, arguments and options."""
    parser.add_argument(
        "target", nargs="+", metavar="[MODULE:STEM] NAME", help="the application, and the task's name"
    )
    parser.add_argument("--args", type=json_value, default=[], help="JSON: a list, or an object of keywords")
    parser.add_argument("--header", type=assignment, action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument(
        "--meta",
        type=assignment,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="stored with the status",
    )
    parser.add_argument(
        "--strict", action="store_true", default=None, help="fail where an option is adjusted"
    )
    parser.add_argument("--wait", type=duration, metavar="SECONDS", help="wait for the result and print it")
    add_option_flags(parser)
    add_json_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Enqueue, and print the id; with ``--wait`` the result."""
    if len(arguments.target) > 2:
        raise ConfigurationError(
            f"{' '.join(arguments.target[2:])!r}: arguments of the task go into --args JSON"
        )
    *app, name = arguments.target
    if not app and ":" in name and not os.environ.get("STEM_BROKER_URL"):
        raise ConfigurationError(f"which task of {name!r}? Write stem enqueue {name} NAME")
    if not isinstance(arguments.args, list | dict):
        raise ConfigurationError(f"--args {arguments.args!r} is neither a JSON list nor an object")
    stem = chosen(app[0] if app else None)
    try:
        options = TaskEnqueueOptions(**options_of(arguments))
    except ValueError as error:
        raise ConfigurationError(str(error)) from error

    async def work(stem: Stem) -> tuple[TaskHandle[object], object]:
        task = stem.tasks.get(name)
        if task is None and app and stem.tasks:  # a worker of something else may know it
            say(f"{app[0]} has no task {name!r}; it has {', '.join(sorted(stem.tasks)[:20])}")
        if task is not None:
            # The handler is known here, so its signature is checked as it would be by task.enqueue().
            positional, keywords = (
                ((), arguments.args) if isinstance(arguments.args, dict) else (arguments.args, {})
            )
            task.parameters.bind(tuple(positional), keywords)
        handle = await stem.enqueue(
            name,
            arguments.args,
            headers=dict(arguments.header),
            meta=dict(arguments.meta),
            enqueue_options=options,
            strict=arguments.strict,
        )
        return handle, await handle.result(arguments.wait) if arguments.wait is not None else None

    try:
        handle, result = with_stem(stem, work)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{name}: {error}") from error
    _print(arguments, handle, result)
    return 0


def _print(arguments: argparse.Namespace, handle: TaskHandle[object], result: object) -> None:
    waited = arguments.wait is not None
    if arguments.json:
        answer = {"id": handle.id, "deduplicated": handle.deduplicated, "adjustments": handle.adjustments}
        print_json({**answer, "result": result} if waited else answer)
        return
    for each in handle.adjustments:
        say(f"adjusted: {each.option}={each.requested!r} became {each.effective!r}: {each.reason}")
    if handle.deduplicated:
        say("this unique task is already there")
    print(handle.id)
    if waited:
        print_json(result)
