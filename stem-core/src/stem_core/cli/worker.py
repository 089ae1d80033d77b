"""``stem worker app:stem``: run an application's tasks."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from pathlib import Path
from typing import Any, Final

from stem_core.cli.apps import load, load_object, warn_if_alone
from stem_core.cli.values import duration, port, size, whole
from stem_core.errors import ConfigurationError
from stem_core.operations.health import Address
from stem_core.operations.supervisor import LINE_FLAG, RECYCLED
from stem_core.worker import Worker

__all__ = ["add", "build", "run"]

_log = logging.getLogger("stem.worker")
#: Seconds that what is left on the loop has to end, once the worker has stopped.
_LAST_WORDS: Final = 1.0

#: Arguments of Worker whose flag has another name, since ``--processes`` counts worker processes.
_FLAGS: Final = {"processes": "task_processes", "queues": "queue"}
_PLAIN: Final = (
    "queue_order",
    "concurrency",
    "threads",
    "processes",
    "lease",
    "prefetch",
    "max_deliveries",
    "drain_timeout",
    "unknown_task_grace",
    "wait",
    "max_tasks",
    "max_memory",
    "max_tasks_per_child",
    "args_encoder",
    "result_encoder",
    "name",
)


def add(parser: argparse.ArgumentParser) -> None:
    """The arguments: those of ``Worker``, and of the process it runs in."""
    parser.add_argument("app", metavar="MODULE:STEM", help="where the Stem with the tasks is")
    work = parser.add_argument_group("what to claim and how to run it")
    work.add_argument(
        "--queue",
        action="append",
        metavar="NAME[=WEIGHT]",
        help="consume this queue (default: 'default'); may be repeated",
    )
    work.add_argument(
        "--queue-order",
        choices=("rotate", "strict"),
        help="share among the queues, or empty the first one first",
    )
    work.add_argument("--concurrency", type=whole, help="tasks at once (default 100)")
    work.add_argument("--threads", type=whole, help="sync tasks at once (default 8)")
    work.add_argument("--task-processes", type=whole, help="tasks with isolation='process' at once")
    work.add_argument("--lease", type=duration, help="how long a claim lasts unless renewed (default 30s)")
    work.add_argument("--prefetch", type=whole, help="claimed beyond what can run")
    work.add_argument(
        "--max-deliveries", type=whole, help="hand-outs before a crash loop is dead (default 5)"
    )
    work.add_argument(
        "--drain-timeout", type=duration, default=25.0, help="for running tasks after a stop (default 25s)"
    )
    work.add_argument("--unknown-task-grace", type=duration, help="for a task not known here (default 60s)")
    work.add_argument("--wait", type=duration, help="of one receive without work (default 2s)")
    work.add_argument("--max-tasks", type=whole, help="start a fresh process after this many runs")
    work.add_argument("--max-memory", type=size, help="or above this much resident memory: 512M, 2G")
    work.add_argument("--max-tasks-per-child", type=whole, help="the same for processes of tasks")
    work.add_argument(
        "--on-startup",
        action="append",
        default=[],
        metavar="MODULE:FUNCTION",
        help="fills ctx.state; repeatable",
    )
    work.add_argument(
        "--on-shutdown",
        action="append",
        default=[],
        metavar="MODULE:FUNCTION",
        help="frees what is in it; repeatable",
    )
    work.add_argument("--args-encoder", metavar="ID", help="for what tasks enqueue here, unless the Stem's")
    work.add_argument("--result-encoder", metavar="ID", help="for results here, unless the Stem's")
    work.add_argument("--name", help="who this worker is (default: host, process, chance)")
    work.add_argument("--until-empty", action="store_true", help="stop when there is nothing left to do")
    process = parser.add_argument_group("the process")
    process.add_argument("--processes", type=whole, default=1, help="worker processes (default 1)")
    process.add_argument("--reload", action="store_true", help="start again when a .py file changes")
    process.add_argument(
        "--reload-dir", action="append", type=Path, help="watch this instead of the current directory"
    )
    process.add_argument("--log-format", choices=("text", "json"), default="text")
    process.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    process.add_argument(
        "--health-port", type=port, help="serve /healthz, /readyz and /metrics; 0: a free port"
    )
    process.add_argument("--health-host", default="127.0.0.1", help="where (default 127.0.0.1)")
    parser.add_argument(LINE_FLAG, type=int, dest="line", help=argparse.SUPPRESS)


def run(arguments: argparse.Namespace) -> int:
    """Run a worker, or a supervisor of several."""
    from stem_core.worker import logs

    logs.configure(arguments.log_format, arguments.log_level)
    if arguments.processes < 1:
        raise ConfigurationError(f"--processes {arguments.processes}: there must be at least 1")
    if arguments.line is None and _supervised(arguments):
        return _supervise(arguments)
    return _work(arguments)


def build(arguments: argparse.Namespace) -> Worker:
    """The worker that ``arguments`` describe.

    :raises ConfigurationError: the application cannot be found, or a value is out of range.
    """
    given: dict[str, Any] = {}
    for name in _PLAIN:
        value = getattr(arguments, _FLAGS.get(name, name))
        if value is not None:
            given[name] = value
    if arguments.queue:
        given["queues"] = _queues(arguments.queue)
    for name in ("on_startup", "on_shutdown"):
        given[name] = [_function(path) for path in getattr(arguments, name)]
    stem = load(arguments.app)
    try:
        worker = Worker(stem, **given)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(str(error)) from error
    left = {task.options.queue for task in worker.stem.tasks.values()} - {*worker.settings.queues}
    if left:
        _log.info("Not consumed here, though tasks name them: %s (--queue)", ", ".join(sorted(left)))
    return worker


def _supervised(arguments: argparse.Namespace) -> bool:
    recycles = arguments.max_tasks is not None or arguments.max_memory is not None
    several = arguments.processes > 1 or arguments.reload
    if several and arguments.until_empty:
        raise ConfigurationError("--until-empty goes with one process, without --reload")
    return several or (recycles and not arguments.until_empty)


def _work(arguments: argparse.Namespace) -> int:
    from stem_core.operations.serving import loop_factory, serve

    worker = build(arguments)
    warn_if_alone(worker.stem)
    health = _address(arguments) if arguments.line is None else None
    runner = asyncio.Runner(loop_factory=loop_factory())
    try:
        runner.run(serve(worker, health=health, line=arguments.line, until_empty=arguments.until_empty))
    finally:
        closed = _close(runner)
    status = RECYCLED if worker.recycled and arguments.line is not None else 0
    if not closed:
        _log.error("Handlers are left that swallow their cancellation; the process ends without them")
        logging.shutdown()
        os._exit(status)
    return status


def _close(runner: asyncio.Runner) -> bool:
    """Close the loop; False when a handler is left that would not let it end. What it ran was given back already."""
    loop = runner.get_loop()
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        _, pending = loop.run_until_complete(asyncio.wait(left, timeout=_LAST_WORDS))
        if pending:
            return False
    runner.close()
    return True


def _supervise(arguments: argparse.Namespace) -> int:
    from stem_core.operations.reload import changes
    from stem_core.operations.supervisor import Supervisor

    def command(number: int) -> list[str]:
        return [sys.executable, "-m", "stem_core.cli", "worker", *_again(arguments, number)]

    async def supervise() -> int:
        supervisor = Supervisor(
            command,
            processes=arguments.processes,
            drain_timeout=arguments.drain_timeout,
            health=_address(arguments),
            changes=changes(arguments.reload_dir or [Path.cwd()]) if arguments.reload else None,
        )
        return await supervisor.run()

    return asyncio.run(supervise())


def _again(arguments: argparse.Namespace, number: int) -> list[str]:
    """The arguments of one of the processes: this one's, but for what the supervisor does itself."""
    words = [arguments.app]
    if arguments.name is not None:
        words.append(
            f"--name={arguments.name}.{number}" if arguments.processes > 1 else f"--name={arguments.name}"
        )
    own = {
        "app",
        "line",
        "processes",
        "reload",
        "reload_dir",
        "health_port",
        "health_host",
        "until_empty",
        "name",
    }
    for name, value in vars(arguments).items():
        if name in own or value is None or value == []:
            continue
        flag = f"--{name.replace('_', '-')}"
        words += [f"{flag}={each}" for each in (value if isinstance(value, list) else [value])]
    return words


def _address(arguments: argparse.Namespace) -> Address | None:
    return None if arguments.health_port is None else Address(arguments.health_host, arguments.health_port)


def _queues(given: list[str]) -> list[str] | dict[str, int]:
    """Names, or names with weights when one has a weight. A name may hold ``=`` itself.

    :raises ConfigurationError: a queue is named twice.
    """
    weights: dict[str, int | None] = {}
    for each in given:
        name, equals, weight = each.rpartition("=")
        weighted = bool(equals) and weight.isdecimal()
        queue = name if weighted else each
        if queue in weights:
            raise ConfigurationError(
                f"--queue {each}: {queue!r} was named already; --queue {queue}=2 takes more from it"
            )
        weights[queue] = int(weight) if weighted else None
    if all(weight is None for weight in weights.values()):
        return list(weights)
    return {name: 1 if weight is None else weight for name, weight in weights.items()}


def _function(path: str) -> Any:
    found = load_object(path, "a function")
    if not callable(found):
        raise ConfigurationError(f"{path!r} is {found!r}, which cannot be called")
    return found
