"""``stem conformance`` on real adapters, on a broken one, and on two that differ."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stem_core.contracts.report import load, render

BROKEN = '''
from dataclasses import replace
from stem_core.builtin.memory.broker import MemoryBroker
from stem_core.builtin.plugin import MEMORY_BROKER
from stem_core.hookspecs import hookimpl
from stem_core.ports import QueueStats

class Broken(MemoryBroker):
    """Leased messages count as ready."""

    async def stats(self, queue):
        real = await super().stats(queue)
        return QueueStats(ready=real.ready + real.leased, scheduled=real.scheduled, dead=real.dead)

def open(url, options):
    return Broken(url.replace("broken:", "memory:"), options, MEMORY_BROKER.capabilities)

@hookimpl
def stem_brokers():
    return [replace(MEMORY_BROKER, name="broken", schemes=("broken",), open=open)]
'''


def conformance(*words: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(path)} if path else dict(os.environ)
    command = [sys.executable, "-m", "stem_core.cli", "conformance", *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A place with an installed plugin that offers ``broken://``."""
    (tmp_path / "broken_plugin.py").write_text(BROKEN)
    info = tmp_path / "broken-2.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 2.5\n")
    (info / "entry_points.txt").write_text("[stem]\nbroken = broken_plugin\n")
    return tmp_path


def test_memory_keeps_every_law(tmp_path: Path) -> None:
    done = conformance("memory://suite", "--json", str(tmp_path / "m.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    reports = load((tmp_path / "m.json").read_text())
    assert [report.kind for report in reports] == ["broker", "backend", "committer"]
    laws = [{finding.law for finding in report.laws} for report in reports]
    assert laws[0] == set(range(20))
    assert laws[1] == {0, 10, 15, 16, *range(20, 28)} - {10}
    assert laws[2] == {30, 31, 32}
    assert all(finding.outcome != "broken" for report in reports for finding in report.laws)
    assert all(
        report.clock and report.contract == 1 and report.distribution == "stem-core" for report in reports
    )
    text = render(reports)
    assert "| 5 | fencing: a receipt settles at most once, a stale one never | kept |" in text
    assert "| 19 | transactional publish, durability and routes hold as declared | - |" in text


def test_a_broken_law_is_told_with_its_example(broken: Path) -> None:
    done = conformance("broken://x", "--kind", "broker", "--json", "-", "--seed", "7", path=broken)
    assert done.returncode == 1, done.stdout + done.stderr
    report = load(done.stdout)[0]
    assert 11 in {finding.law for finding in report.broken}
    assert (report.adapter, report.distribution, report.version, report.seed) == (
        "broken",
        "broken",
        "2.5",
        7,
    )
    detail = next(finding.detail for finding in report.broken if finding.law == 11)
    assert "law 11: with 5 leased stats says {'ready': 6" in detail
    assert "state.publish(" in detail, "the shrunk history is there"
    assert json.loads(done.stdout)["reports"][0]["kept"] is False


def test_what_differs_is_found_and_shrunk(broken: Path) -> None:
    done = conformance("broken://x", "--against", "memory://", "--seed", "1", path=broken)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "broken (one) and memory (other) differ" in done.stdout
    assert len([line for line in done.stdout.splitlines() if ". ('" in line]) <= 4, done.stdout


@pytest.mark.parametrize("seed", [1229876613, 992511223])
def test_adapters_that_keep_the_laws_agree(tmp_path: Path, seed: int) -> None:
    """These histories settle after a lease's end, where sqlite and memory may answer as they like."""
    done = conformance(f"sqlite:///{tmp_path}/x.db", "--against", "memory://", "--seed", str(seed))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "agree in 200 histories" in done.stdout


def test_what_cannot_be_run_is_said() -> None:
    done = conformance("nowhere://x")
    assert done.returncode == 2
    assert "No broker for 'nowhere://'" in done.stderr
