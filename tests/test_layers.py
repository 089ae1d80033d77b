"""Imports point one way: a module imports from its own layer or from those above it in LAYERS."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
CORE = "stem_core"
ADAPTERS = ("stem_redis", "stem_postgres", "stem_signing", "stem_codecs")
MOST_LINES = 450

#: Modules directly below stem_core, first the ones that everything may import.
LAYERS: tuple[tuple[str, ...], ...] = (
    (
        "errors",
        "clock",
        "names",
        "scripts",
        "url",
        "checks",
        "options",
        "signature",
        "envelope",
        "status",
        "plain",
        "keylist",
    ),
    ("ports",),
    ("hookspecs",),
    ("plugins",),
    ("sealing", "publishing", "routing", "encoding", "resolving", "negotiation", "retry"),
    ("wiring",),
    ("shared",),
    ("arguments", "builder", "context", "control", "dead_letters", "definition", "handles", "tasks"),
    (
        "assembly",
        "declaring",
        "sending",
        "coalescing",
        "planning",
        "dispatching",
        "explaining",
        "transactions",
        "loops",
        "connected",
        "producer",
    ),
    ("canvas",),
    ("worker",),
    ("app",),
    ("operations",),
)
#: What stands beside the layers, and how far up it may look.
UP_TO_HOOKS = {name for layer in LAYERS[:3] for name in layer}
BESIDE: dict[str, set[str]] = {
    "builtin": UP_TO_HOOKS,
    "contracts": {name for layer in LAYERS for name in layer},
    "testing": {name for layer in LAYERS for name in layer} | {"builtin", "contracts", CORE},
    "cli": {name for layer in LAYERS for name in layer} | {"builtin", CORE},
    # The public names: `from stem_core import Stem`.
    CORE: {name for layer in LAYERS for name in layer},
}

#: (module, what it imports): why this one may look the wrong way.
EXCEPTIONS: dict[tuple[str, str], str] = {}

#: What each package may import besides the standard library; the second set in functions only (extras).
THIRD_PARTY: dict[str, tuple[set[str], set[str]]] = {
    "stem_core": ({"importlib_metadata", "msgspec", "pluggy"}, {"attr", "attrs", "pydantic", "uvloop"}),
    "stem_redis": ({"hiredis", "msgspec", "pluggy", "redis"}, set()),
    "stem_postgres": ({"msgspec", "pluggy", "psycopg", "psycopg_pool"}, set()),
    "stem_signing": ({"msgspec", "pluggy", "cryptography"}, set()),
    "stem_codecs": ({"msgspec", "pluggy", "cbor2", "cryptography", "lz4", "zstandard"}, set()),
}
#: Only below ``if TYPE_CHECKING``: type checkers bring it, users need not have it.
TYPING_ONLY = {"typing_extensions"}
#: Only TESTERS may import the test tools.
TEST_TOOLS = {"hypothesis", "pytest"}
TESTERS = ("stem_core.contracts", "stem_core.testing")


class Import(NamedTuple):
    module: str
    """Who imports."""
    target: str
    """What, as far as it names a module of ours; else the top name."""
    line: int
    in_function: bool
    for_types: bool
    """Below ``if TYPE_CHECKING``: never imported at run time."""

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


def modules(package: str) -> dict[str, Path]:
    source = ROOT / package.replace("_", "-") / "src"
    found = {}
    for path in sorted((source / package).rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = {package: modules(package) for package in (CORE, *ADAPTERS)}
OURS = {name for package in MODULES.values() for name in package}


def imports(module: str, path: Path) -> Iterator[Import]:
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    inside = {id(child) for function in functions for child in ast.walk(function)}
    guards = [node for node in ast.walk(tree) if isinstance(node, ast.If) and is_type_checking(node.test)]
    guarded = {id(child) for guard in guards for statement in guard.body for child in ast.walk(statement)}
    for node in ast.walk(tree):
        for target in targets(module, path, node):
            line: int = node.lineno  # type: ignore[attr-defined]
            yield Import(module, target, line, id(node) in inside, id(node) in guarded)


def is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def targets(module: str, path: Path, node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
            parts = package[: len(package) - node.level + 1] + ([base] if base else [])
            base = ".".join(parts)
        for alias in node.names:
            full = f"{base}.{alias.name}"
            yield full if full in OURS else base


ALL_IMPORTS = [
    found for package in MODULES.values() for name, path in package.items() for found in imports(name, path)
]


def section(module: str) -> str:
    """``stem_core.ports.broker`` -> ``ports``; ``stem_core`` itself -> ``stem_core``."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def allowed(name: str) -> set[str]:
    """The sections that ``name``, a section of the core, may import."""
    if name in BESIDE:
        return BESIDE[name] | {name}
    level = next(i for i, layer in enumerate(LAYERS) if name in layer)
    return {other for layer in LAYERS[: level + 1] for other in layer}


def inward(package: str) -> list[Import]:
    """What ``package`` imports of the core."""
    return [
        found
        for found in ALL_IMPORTS
        if found.module.split(".")[0] == package and found.target.split(".")[0] == CORE
    ]


def complain(bad: list[Import], why: str) -> None:
    assert not bad, f"{why}:\n" + "\n".join(f"  {found}" for found in bad)


def test_every_core_module_has_a_layer() -> None:
    known = {name for layer in LAYERS for name in layer} | set(BESIDE)
    unknown = sorted({section(name) for name in MODULES[CORE]} - known)
    assert not unknown, f"give these a place in LAYERS of {Path(__file__).name}: {', '.join(unknown)}"


def test_core_imports_point_one_way() -> None:
    known = {name for layer in LAYERS for name in layer} | set(BESIDE)
    bad = [
        found
        for found in inward(CORE)
        if section(found.module) in known
        and section(found.target) not in allowed(section(found.module))
        and (found.module, found.target) not in EXCEPTIONS
    ]
    complain(bad, "these look down the layers (functions' imports count too; EXCEPTIONS wants a reason)")


def test_exceptions_are_needed() -> None:
    real = {(found.module, found.target) for found in ALL_IMPORTS}
    assert set(EXCEPTIONS) <= real, f"no longer imported: {sorted(set(EXCEPTIONS) - real)}"


@pytest.mark.parametrize("package", ADAPTERS)
def test_adapters_import_values_ports_and_hooks_only(package: str) -> None:
    complain(
        [found for found in inward(package) if section(found.target) not in UP_TO_HOOKS],
        f"an adapter sees {', '.join(sorted(UP_TO_HOOKS))} and no more of the core",
    )


@pytest.mark.parametrize("package", [CORE, *ADAPTERS])
def test_packages_import_only_what_they_depend_on(package: str) -> None:
    always, in_functions = THIRD_PARTY[package]
    own = {package, CORE}
    bad = []
    for found in ALL_IMPORTS:
        if found.module.split(".")[0] != package:
            continue
        top = found.target.split(".")[0]
        may = always | own | (in_functions if found.in_function else set())
        may |= TYPING_ONLY if found.for_types else set()
        if found.module.startswith(TESTERS):
            may |= TEST_TOOLS
        if top not in may and top not in sys.stdlib_module_names:
            bad.append(found)
    complain(bad, f"{package} depends on no such thing (or may want it in a function only)")


def test_no_file_is_too_long() -> None:
    folders = ("stem-*/src", "stem-*/tests", "tests", "benchmarks", "examples")
    sources = [
        path
        for folder in folders
        for root in ROOT.glob(folder)
        for path in root.rglob("*")
        if path.suffix in {".py", ".lua", ".sql"}
    ]
    lengths = {path.relative_to(ROOT): len(path.read_text("utf-8").splitlines()) for path in sources}
    long = {str(path): lines for path, lines in lengths.items() if lines > MOST_LINES}
    assert lengths
    assert not long, f"a file has one responsibility and at most {MOST_LINES} lines: {long}"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import stem_core.ports.broker", ["stem_core.ports.broker"]),
        ("from stem_core import errors", ["stem_core.errors"]),
        ("from stem_core import Stem", ["stem_core"]),
        ("from . import broker", ["stem_core.ports.broker"]),
        ("from ..errors import StemError", ["stem_core.errors"]),
        ("def f():\n    from stem_core.ports import Broker", ["stem_core.ports"]),
    ],
)
def test_this_test_sees_every_form_of_import(tmp_path: Path, source: str, found: list[str]) -> None:
    path = tmp_path / "encoder.py"
    path.write_text(source)
    assert [item.target for item in imports("stem_core.ports.encoder", path)] == found
