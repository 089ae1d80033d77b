"""The tutorial's code is the example's code, and it keeps the contract where only packages are installed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TUTORIAL = ROOT / "docs" / "writing-an-adapter.md"
EXAMPLE = ROOT / "examples" / "third-party-adapter"
_BLOCK = re.compile(
    r"^```(?:python|toml|text)\n# file: (\S+)( \(continued\))?\n(.*?)^```$", re.MULTILINE | re.DOTALL
)


def tutorial() -> dict[str, str]:
    """The files that the tutorial's blocks make, by path."""
    files: dict[str, str] = {}
    for path, continued, text in _BLOCK.findall(TUTORIAL.read_text(encoding="utf-8")):
        assert bool(continued) == (path in files), (
            f"{path}: a block (continued) follows another, and only then"
        )
        files[path] = files.get(path, "") + text
    return files


def write(folder: Path) -> None:
    for path, text in tutorial().items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")


def run(folder: Path, site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The tutorial's folder, and a place where its wheel is installed as pip would."""
    folder, site = tmp_path_factory.mktemp("shelf"), tmp_path_factory.mktemp("site")
    write(folder)
    package = folder / "src" / "stem_shelf"
    (site / "stem_shelf").mkdir()
    for path in package.iterdir():
        (site / "stem_shelf" / path.name).write_bytes(path.read_bytes())
    entry = re.search(
        r"^\[project\.entry-points\.stem\]\n(.*?)\n\n", tutorial()["pyproject.toml"], re.MULTILINE | re.DOTALL
    )
    assert entry
    info = site / "stem_shelf-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stem-shelf\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[stem]\n" + entry.group(1).replace('"', "") + "\n")
    return folder, site


def test_the_example_is_the_tutorials_result() -> None:
    files = tutorial()
    ours = {
        str(path.relative_to(EXAMPLE)): path.read_text(encoding="utf-8")
        for path in EXAMPLE.rglob("*")
        if path.is_file() and not {"__pycache__", "README.md"} & set(path.relative_to(EXAMPLE).parts)
    }
    assert ours == files


def test_the_test_file_is_short() -> None:
    text = (EXAMPLE / "tests" / "test_contract.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 15


def test_the_tutorials_adapter_keeps_the_contract(built: tuple[Path, Path]) -> None:
    folder, site = built
    words = ("pytest", "-q", "-p", "no:cacheprovider", "-p", "_hypothesis_pytestplugin", "tests")
    done = run(folder, site, *words)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    assert re.search(r"\d+ passed", done.stdout)


def test_it_is_found_and_judged_as_installed(built: tuple[Path, Path], tmp_path: Path) -> None:
    folder, site = built
    done = run(folder, site, "stem_core.cli", "conformance", f"shelf://{tmp_path}", "--json", "-")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    assert '"distribution": "stem-shelf"' in done.stdout
    assert '"clock": true' in done.stdout


@pytest.mark.parametrize("url", ["shelf://relative/x", "shelf://"])
def test_a_url_that_would_mean_another_folder_is_refused(built: tuple[Path, Path], url: str) -> None:
    folder, site = built
    done = run(folder, site, "stem_core.cli", "conformance", url, "--kind", "broker")
    assert done.returncode == 2, done.stdout[-4000:] + done.stderr
    assert f"'{url}' is not a shelf" in done.stderr


def test_the_tutorials_adapter_is_typed(built: tuple[Path, Path]) -> None:
    folder, site = built
    done = run(folder, site, "mypy", "--strict", "--python-version=3.11", "--cache-dir", os.devnull, "src")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "module", ["stem_core", "stem_core.cli", "stem_core.plugins", "stem_core.builtin.plugin"]
)
def test_only_the_suite_imports_test_tools(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'hypothesis', 'pytest'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


_EVERY_MODULE = """
import importlib, pkgutil, sys
import stem_core

def walk(package):
    for found in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        if found.name in ("stem_core.contracts", "stem_core.testing") or found.name.endswith("__main__"):
            continue
        module = importlib.import_module(found.name)
        if found.ispkg:
            walk(module)

walk(stem_core)
print(sorted({"hypothesis", "pytest"} & set(sys.modules)))
"""


def test_nothing_but_the_suite_imports_test_tools() -> None:
    done = subprocess.run([sys.executable, "-c", _EVERY_MODULE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
