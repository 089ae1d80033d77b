"""Each package builds its own wheel, installs alone into an empty environment, and `stem plugins` lists it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import uv

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "stem-core": ("builtin", "broker memory"),
    "stem-redis": ("redis", "broker redis"),
    "stem-postgres": ("postgres", "broker postgresql"),
    "stem-signing": ("signing", "signer hmac-sha256"),
    "stem-codecs": ("codecs", "encoder cbor"),
}


def run(*command: str | Path) -> str:
    done = subprocess.run(
        [str(each) for each in command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("wheels")
    run(uv.find_uv_bin(), "build", "--quiet", "--all-packages", "--wheel", "--out-dir", folder)
    return {path.name.partition("-")[0].replace("_", "-"): path for path in folder.glob("*.whl")}


@pytest.fixture(params=PACKAGES)
def installed(request: pytest.FixtureRequest, wheels: dict[str, Path], tmp_path: Path) -> tuple[str, Path]:
    """A package's wheel and what it depends on, and nothing else; stem-core comes as our wheel too."""
    package: str = request.param
    environment = tmp_path / "venv"
    run(uv.find_uv_bin(), "venv", "--quiet", "--python", sys.executable, environment)
    python = environment / "bin" / "python"
    given = {wheels[package], wheels["stem-core"]}
    run(uv.find_uv_bin(), "pip", "install", "--quiet", "--python", python, *sorted(given))
    return package, environment / "bin"


@pytest.mark.timeout(300)
def test_a_wheel_installs_alone_and_is_listed(installed: tuple[str, Path]) -> None:
    package, binaries = installed
    plugins: Any = json.loads(run(binaries / "stem", "plugins", "--json"))
    name, provides = PACKAGES[package]
    listed = {each["name"]: each for each in plugins["plugins"]}
    assert listed[name]["distribution"] == package
    assert provides in listed[name]["provides"]
    assert set(listed) == {"builtin", name}
    assert plugins["broken"] == []
    # Type information travels, and no test tool is needed.
    module = package.replace("-", "_")
    found = run(
        binaries / "python",
        "-c",
        f"import sys, {module}, pathlib; print((pathlib.Path({module}.__file__).parent / 'py.typed').exists());"
        "print(sorted({'pytest', 'hypothesis'} & set(sys.modules)))",
    )
    assert found.split() == ["True", "[]"]
