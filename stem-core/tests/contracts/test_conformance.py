"""``stem conformance`` on real adapters, on a broken one, and on two that differ."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stem_core.contracts.parts import merged
from stem_core.contracts.report import Finding, Outcome, Report, load, render

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
    assert laws[1] == {0, 10, 15, 16, 19, *range(20, 28)}
    assert laws[2] == {3, 9, 10, 15, 16, 30, 31, 32}
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


def test_an_encoder_with_a_nonce_keeps_its_laws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEM_ENCRYPTION_KEYS", "k1:" + base64.b64encode(b"K" * 32).decode())
    done = conformance("aes-gcm", "--seed", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 laws kept, 0 broken" in done.stdout


def test_several_processes_make_one_report() -> None:
    words = ("memory://parts", "--kind", "committer", "--seed", "3", "--json", "-")
    whole, parts = (conformance(*words, "--jobs", jobs) for jobs in ("1", "3"))
    assert parts.returncode == 0, parts.stdout + parts.stderr
    tests = [{f.law: (f.outcome, f.tests) for f in load(done.stdout)[0].laws} for done in (whole, parts)]
    assert tests[0] == tests[1]
    assert sorted(tests[0]) == [3, 9, 10, 15, 16, 30, 31, 32]


def test_what_broke_in_one_process_is_told(broken: Path) -> None:
    done = conformance("broken://x", "--kind", "broker", "--jobs", "2", "--seed", "7", path=broken)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "law 11 is broken:" in done.stdout
    assert "law 11: with 5 leased stats says {'ready': 6" in done.stdout


def test_a_process_that_cannot_run_says_why() -> None:
    done = conformance("redis://127.0.0.1:1", "--jobs", "2")
    assert done.returncode == 2
    assert "127.0.0.1:1" in done.stderr
    assert conformance("memory://", "--jobs", "0").returncode == 2


@pytest.mark.parametrize(
    ("outcomes", "wanted"),
    [
        (("kept", "broken"), ("broken", 2, "two")),
        (("not declared", "kept"), ("kept", 2, "two")),
        (("not declared", "not tested"), ("not tested", 2, "two")),
        (("broken", "broken"), ("broken", 2, "one\n\ntwo")),
    ],
)
def test_the_worst_part_counts(outcomes: tuple[Outcome, Outcome], wanted: tuple[Outcome, int, str]) -> None:
    parts = [
        Report(kind="broker", adapter="a", distribution="d", version="1", server="", stem="1", contract=1, python="3",
               profile="quick", seed=1, clock=False, seconds=seconds, laws=(Finding(4, "t", outcome, 1, 0.5, detail),))
        for outcome, detail, seconds in zip(outcomes, ("one", "two"), (2.0, 3.0), strict=True)
    ]  # fmt: skip
    made = merged(parts)
    (law,) = made.laws
    assert (law.outcome, law.tests, law.detail) == wanted
    assert (made.seconds, law.seconds) == (3.0, 1.0)


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
