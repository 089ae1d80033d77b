"""``stem plugins`` and ``stem doctor`` on real distributions: empty, broken, and in order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.plugins.distributions import install, run, wheel


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder, site = tmp_path / "wheels", tmp_path / "site"
    folder.mkdir()
    install(
        site,
        wheel(folder, "stem-empty", {"empty": "stem_empty"}, {"stem_empty.py": '"""Nothing yet."""\n'}),
        wheel(
            folder,
            "stem-broken",
            {"broken": "stem_broken"},
            {"stem_broken.py": "raise RuntimeError('no luck')\n"},
        ),
    )
    return site


def test_empty_and_broken_ones_are_listed_and_hide_nobody(site: Path) -> None:
    done = run(site, "-m", "stem_core.cli", "plugins")
    assert done.returncode == 1
    rows = {line.split()[0]: line for line in done.stdout.splitlines() if line}
    assert "provides nothing yet" in rows["empty"]
    assert "BROKEN: RuntimeError: no luck" in rows["broken"]
    assert "broker sqlite" in rows["builtin"]


def test_doctor_fails_for_a_broken_one(site: Path) -> None:
    done = run(site, "-m", "stem_core.cli", "doctor", "memory://", "--json")
    assert done.returncode == 1
    (broken,) = [each for each in json.loads(done.stdout) if each["failed"]]
    assert (broken["key"], "no luck" in broken["warning"]) == ("plugin broken", True)


def test_with_it_disabled_all_is_well(site: Path) -> None:
    assert run(site, "-m", "stem_core.cli", "plugins", STEM_DISABLE_PLUGINS="broken").returncode == 0
