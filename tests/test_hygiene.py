"""What no tracked file may hold, and what every public module must."""

from __future__ import annotations

import importlib
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Put together here, so that this file does not hold what it forbids.
_SLASH = "/"
_HOSTS = ("pypi" + ".org", "pythonhosted" + ".org", "registry.npm" + "js", "deb.debian" + ".org")
FORBIDDEN = {
    "a path of one machine": re.compile(rf"(?<![\w.~*}}-]){_SLASH}(?:work|tmp|root|Users|home){_SLASH}\w"),
    "a package registry's host": re.compile("|".join(map(re.escape, _HOSTS))),
    "a merge conflict": re.compile(r"^(?:<{7} |>{7} )", re.MULTILINE),
}
PACKAGES = ("stem_core", "stem_redis", "stem_postgres", "stem_signing", "stem_codecs")


def tracked() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    return [ROOT / name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]


def public_modules() -> list[str]:
    found = []
    for package in PACKAGES:
        source = ROOT / package.replace("_", "-") / "src"
        for path in sorted(source.rglob("*.py")):
            parts = path.relative_to(source).with_suffix("").parts
            if parts[-1] != "__main__":
                found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


def findings(text: str) -> list[str]:
    return [
        f"{what}: {hit.group()!r}" for what, pattern in FORBIDDEN.items() if (hit := pattern.search(text))
    ]


def test_tracked_files_name_no_machine_and_no_registry() -> None:
    files = tracked()
    bad = {}
    for path in files:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture or an archive
        if found := findings(text):
            bad[str(path.relative_to(ROOT))] = found
    assert files
    assert not bad, bad


@pytest.mark.parametrize(
    "text",
    [
        f"see {_SLASH}work{_SLASH}main",
        f"sqlite:{_SLASH * 3}{_SLASH}tmp{_SLASH}x.db",
        f"https:{_SLASH * 2}{_HOSTS[0]}{_SLASH}simple",
        "<" * 7 + " HEAD",
    ],
)
def test_the_patterns_find_what_they_forbid(text: str) -> None:
    assert findings(text)


@pytest.mark.parametrize("module", public_modules())
def test_all_names_what_exists_once(module: str) -> None:
    # The order within __all__ is ruff's matter (RUF022, in `make check`).
    loaded = importlib.import_module(module)
    names = list(getattr(loaded, "__all__", ()))
    assert len(names) == len(set(names))
    missing = [name for name in names if not hasattr(loaded, name)]
    assert not missing, f"{module}.__all__ names what is not there: {missing}"
