"""Real distributions with real entry points, installed into a directory of their own."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import uv


def wheel(folder: Path, name: str, entry_points: dict[str, str], files: dict[str, str]) -> Path:
    """A wheel of ``files``, whose entry points of group ``stem`` are ``entry_points``."""
    distribution = name.replace("-", "_")
    info = f"{distribution}-1.0.dist-info"
    points = "".join(f"{key} = {value}\n" for key, value in entry_points.items())
    content = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[stem]\n{points}",
    }
    rows = [f"{path},sha256={_digest(text)},{len(text.encode())}" for path, text in content.items()]
    content[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,", ""])
    path = folder / f"{distribution}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for each, text in content.items():
            archive.writestr(each, text)
    return path


def install(site: Path, *wheels: Path) -> None:
    command = [uv.find_uv_bin(), "pip", "install", "--quiet", "--offline", "--no-deps"]
    command += ["--python", sys.executable, "--target", str(site), *map(str, wheels)]
    subprocess.run(command, check=True)


def run(site: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Python with ``site`` in front of its path."""
    variables = {**os.environ, "PYTHONPATH": str(site), **environment}
    return subprocess.run(
        [sys.executable, *arguments], env=variables, capture_output=True, text=True, check=False, timeout=60
    )


_REPORT = """
import dataclasses, json
from stem_core.plugins import discover
found = discover()
print(json.dumps({
    "plugins": {each.name: dataclasses.asdict(each) for each in found.plugins},
    "broken": {each.name: dataclasses.asdict(each) for each in found.broken},
    "disabled": found.disabled,
    "brokers": sorted(found.brokers),
    "encoders": sorted(found.encoders),
    "hooks": {name: len(functions) for name, functions in found.hooks.items()},
}))
"""


def report(site: Path, **environment: str) -> dict[str, Any]:
    """What a fresh process discovers."""
    done = run(site, "-c", _REPORT, **environment)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
