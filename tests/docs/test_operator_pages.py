"""Pages for operators and plugin authors say what is true: hooks, states, reasons, capabilities, commands, metrics."""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import re
import shlex
from pathlib import Path

import pytest

from stem_core import hookspecs
from stem_core.cli import COMMANDS
from stem_core.names import DeadReason
from stem_core.plugins import discover
from stem_core.status import StatusUpdate, TaskState, merge

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def hook_signatures() -> list[str]:
    tree = ast.parse(inspect.getsource(hookspecs))
    found = [
        f"{node.name}({ast.unparse(node.args)}) -> {ast.unparse(node.returns)}"
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.returns and node.name.startswith("stem_")
    ]
    assert len(found) >= 15
    return found


@pytest.mark.parametrize("signature", hook_signatures())
def test_every_hook_has_a_heading_with_its_signature(signature: str) -> None:
    assert f"\n### `{signature}`\n" in page("hooks.md")


def test_no_hook_is_described_that_is_not_there() -> None:
    headings = re.findall(r"^### `(.*)`$", page("hooks.md"), re.MULTILINE)
    assert headings
    assert sorted(headings) == sorted(hook_signatures())


def transitions() -> list[tuple[str, str, str]]:
    diagram = page("life-of-a-task.md").partition("```mermaid")[2].partition("```")[0]
    return re.findall(r"(\w+) --> (\w+): (.*)", diagram)


def test_the_diagram_has_every_state_and_only_those() -> None:
    assert {state for found in transitions() for state in found[:2]} == set(TaskState)


@pytest.mark.parametrize(("before", "after", "label"), transitions())
def test_every_transition_of_the_diagram_is_allowed(before: str, after: str, label: str) -> None:
    # A run after a retry is the next attempt, a replay the next generation; all else is one.
    generation = 1 if "replay" in label else 0
    attempt = 1 if before == "retrying" and not generation else 0
    current = merge(None, StatusUpdate(id="t", state=TaskState(before)))
    update = StatusUpdate(id="t", state=TaskState(after), generation=generation, attempt=attempt)
    assert merge(current, update) is not None


@pytest.mark.parametrize("state", [each for each in TaskState if each.terminal])
def test_a_terminal_state_is_left_only_by_the_next_generation(state: TaskState) -> None:
    current = merge(None, StatusUpdate(id="t", state=state))
    for other in set(TaskState) - {state}:
        assert merge(current, StatusUpdate(id="t", state=other, attempt=5)) is None
    assert all("replay" in label for before, _, label in transitions() if before == state)


@pytest.mark.parametrize("reason", DeadReason)
def test_every_reason_of_a_dead_letter_is_explained(reason: DeadReason) -> None:
    assert f"| `{reason.value}` |" in page("life-of-a-task.md")


@pytest.mark.parametrize("path", re.findall(r"`(stem_core(?:\.\w+)+)`", page("life-of-a-task.md")))
def test_every_function_that_is_named_is_there(path: str) -> None:
    parts = path.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for name in parts[count:]:
            found = getattr(found, name)
        return
    raise AssertionError(path)


def test_the_table_of_adapters_is_what_they_declare() -> None:
    catalogue = discover()
    text = page("delivery-guarantees.md").partition("## By adapter")[2]
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    adapters = rows[0]
    assert set(adapters) == {"memory", "sqlite", "redis", "postgres"}
    schemes = dict(zip(adapters, ("memory", "sqlite", "redis", "postgresql"), strict=True))
    checked = 0
    for cell, *values in rows[1:]:
        if not cell.startswith("`"):
            continue
        name = cell.strip("`")
        for adapter, said in zip(adapters, values, strict=True):
            broker = catalogue.brokers[schemes[adapter]].capabilities
            backend = catalogue.backends[schemes[adapter]].capabilities
            declared = getattr(broker, name) if hasattr(broker, name) else getattr(backend, name)
            expected = {True: "yes", False: "no"}[declared] if isinstance(declared, bool) else str(declared)
            assert said == expected, f"{name} of {adapter}"
            checked += 1
    assert checked >= 40


def console_commands() -> list[str]:
    found = []
    for path in sorted(DOCS.glob("*.md")):
        for block in re.findall(r"```console\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL):
            found += re.findall(r"^\$ (stem .*)$", block, re.MULTILINE)
    return found


@pytest.mark.parametrize("line", console_commands())
def test_every_command_line_shown_is_understood(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    known = {each.words: each for each in COMMANDS}
    command, rest = next(
        (known[" ".join(words[:count])], words[count:])
        for count in (2, 1)
        if " ".join(words[:count]) in known
    )
    module = importlib.import_module(f"stem_core.cli.{command.module}")
    parser = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    module.add(parser)
    parser.parse_args(rest)


@pytest.mark.parametrize("command", COMMANDS, ids=[each.words for each in COMMANDS])
def test_every_command_is_shown(command) -> None:
    assert f"stem {command.words}" in page("operations.md")


def test_every_metric_is_in_the_table() -> None:
    source = "".join(
        path.read_text(encoding="utf-8")
        for path in (ROOT / "stem-core/src/stem_core/operations").glob("*.py")
    )
    names = set(re.findall(r'"(stem_\w+)"', source)) - {"stem_core"}
    names = {name for name in names if not name.startswith("stem_task_") or name.endswith("_seconds")}
    table = set(
        re.findall(r"`(stem_\w+)`", page("operations.md").partition("### Metrics")[2].partition("###")[0])
    )
    assert table == names
