"""The command ``stem``. Each command is a module, imported when it is asked for, so ``stem --help`` is fast."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final, NamedTuple, NoReturn

from stem_core.errors import ConfigurationError, StemError

__all__ = ["COMMANDS", "Command", "main"]

#: Exit statuses: what was asked for failed; it was asked for wrongly (as argparse does).
FAILED: Final = 1
MISUSED: Final = 2
INTERRUPTED: Final = 130


class Command(NamedTuple):
    """One command: its words, what it is for, and the module with ``add(parser)`` and ``run(arguments) -> int``."""

    words: str
    summary: str
    module: str


#: A command of two words is found before one of one word: ``stem worker ls`` can stand beside ``stem worker APP``.
COMMANDS: Final = (
    Command("worker", "Run the tasks of an application", "worker"),
    Command("worker ls", "List the workers that live", "worker_ls"),
    Command("worker ping", "Ask workers whether they answer", "worker_ping"),
    Command("worker inspect", "Ask workers what they are running", "worker_inspect"),
    Command("worker stats", "Ask workers what they have counted", "worker_stats"),
    Command("worker pause", "Hand out nothing more of a queue", "worker_pause"),
    Command("worker resume", "Hand a paused queue out again", "worker_resume"),
    Command("worker shutdown", "Stop workers", "worker_shutdown"),
    Command("enqueue", "Enqueue one task", "enqueue"),
    Command("explain", "What would happen to each option of a call, and why", "explain"),
    Command("check", "Check every task's options against the configured adapters", "check"),
    Command("queues", "Count what waits, runs and is dead in each queue", "queues"),
    Command("tasks show", "What is recorded of a task", "tasks_show"),
    Command("tasks revoke", "Call a task off", "tasks_revoke"),
    Command("dlq list", "List dead letters", "dlq_list"),
    Command("dlq show", "Show one dead letter, with its arguments", "dlq_show"),
    Command("dlq replay", "Send dead letters again", "dlq_replay"),
    Command("dlq purge", "Throw dead letters away", "dlq_purge"),
    Command("plugins", "List plugins, what they provide, and why broken ones are broken", "plugins"),
    Command("doctor", "Check this installation, and a broker and backend that it uses", "doctor"),
    Command("conformance", "Prove that an adapter keeps the laws of the contract", "conformance"),
    Command("migrate", "Bring the schema of a PostgreSQL database up to date", "migrate"),
    Command("relay", "Publish what transactions wrote into an outbox", "relay"),
    Command("keys generate", "Make a signing key", "keys_generate"),
    Command("keys list", "List the signing keys of the environment, without their bytes", "keys_list"),
    Command("keys rotate", "Plan the replacement of the signing key", "keys_rotate"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 it worked, 1 it failed, 2 it was asked for wrongly."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    command, rest = _find(given)
    parser = _Parser(prog=f"stem {command.words}", description=command.summary + ".", allow_abbrev=False)
    module = importlib.import_module(f"{__name__}.{command.module}")
    module.add(parser)
    if getattr(module, "PASSES_ON", False):
        parsed = argparse.Namespace(words=rest)
    else:
        parsed = parser.parse_args(rest)
    try:
        status: int = module.run(parsed)
        sys.stdout.flush()
    except (ConfigurationError, ValueError) as error:  # what was given is wrong, and the text says what
        return _complain(error, MISUSED)
    except (StemError, OSError) as error:
        if isinstance(error, BrokenPipeError):  # whoever read our output has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return FAILED
        return _complain(error, FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED
    return status


class _Parser(argparse.ArgumentParser):
    """Answers a mistake in one line, with what was meant, where argparse prints every flag there is before it."""

    def error(self, message: str) -> NoReturn:
        start, _, rest = message.partition("unrecognized arguments: ")
        meant = None if start or not rest else self._meant(rest.split()[0])
        way_out = f"did you mean {meant}?" if meant else f"'{self.prog} --help' says more"
        print(f"{self.prog}: {message.removeprefix('argument ')}; {way_out}", file=sys.stderr)
        raise SystemExit(MISUSED)

    def _meant(self, word: str) -> str | None:
        """The flag that an argument was meant to be, or to go with."""
        known = self._option_string_actions
        if word.startswith("-"):
            import difflib

            return next(iter(difflib.get_close_matches(word.partition("=")[0], known, n=1)), None)
        if ":" in word and "--app" in known:
            return f"--app {word}"
        return next((f"{flag} {word}" for flag in ("--id", "--worker", "--args") if flag in known), None)


def _find(given: list[str]) -> tuple[Command, list[str]]:
    """The command that ``given`` begins with, and its arguments. Exits for help, version and mistakes."""
    if not given or given[0] in {"-h", "--help"}:
        print(_help())
        raise SystemExit(0 if given else MISUSED)
    if given[0] in {"-V", "--version"}:
        from importlib.metadata import version

        print(f"stem {version('stem-core')}")
        raise SystemExit(0)
    known = {each.words: each for each in COMMANDS}
    for count in (2, 1):
        found = known.get(" ".join(given[:count]))
        if found is not None:
            return found, given[count:]
    family = [each for each in COMMANDS if each.words.startswith(f"{given[0]} ")]
    if not family:
        _misuse(f"there is no command {given[0]!r}", [each.words for each in COMMANDS], given[0])
    if given[1:2] in (["-h"], ["--help"]):
        print(_rows(family))
        raise SystemExit(0)
    words = [each.words.split()[1] for each in family]
    asked = (
        f"there is no command 'stem {given[0]} {given[1]}'; there are"
        if given[1:]
        else f"stem {given[0]} needs"
    )
    return _misuse(f"{asked}: {', '.join(words)}")


def _misuse(problem: str, words: Sequence[str] = (), near: str = "") -> NoReturn:
    import difflib

    close = difflib.get_close_matches(near, [each.partition(" ")[0] for each in words], n=1)
    hint = f"; did you mean 'stem {close[0]}'?" if close else "; 'stem --help' lists them" if words else ""
    print(f"stem: {problem}{hint}", file=sys.stderr)
    raise SystemExit(MISUSED)


def _help() -> str:
    return (
        "usage: stem COMMAND ... (stem COMMAND --help says more)\n\n"
        f"{_rows(COMMANDS)}\n\n"
        "Where an application is needed, name it module:attribute. Where none is named, STEM_BROKER_URL,\n"
        "STEM_BACKEND_URL and the other STEM_* variables say what to connect to. --json is for programs."
    )


def _rows(commands: Sequence[Command]) -> str:
    width = max(len(each.words) for each in commands)
    return "\n".join(f"  {each.words.ljust(width)}  {each.summary}" for each in commands)


def _complain(error: BaseException, status: int) -> int:
    from stem_core.cli.output import say

    kind = "" if isinstance(error, StemError) else f"{type(error).__name__}: "
    say(f"stem: {kind}{error}")
    return status
