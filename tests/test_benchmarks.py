"""Every benchmark runs, in a tiny mode; and what judges them can find fault. Nothing here depends on speed."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import benchmarks.__main__ as bench
from benchmarks import depth, soak
from benchmarks.figures import Figure, Round, gather, table
from benchmarks.peers import __main__ as peers
from benchmarks.peers import side
from benchmarks.soak_stores import Left, MemoryStore, RedisStore, SqliteStore, _kind

ROOT = Path(__file__).parent.parent
GROUPS = {"memory": 1, "sqlite": 3, "redis": 8, "postgres": 6, "signing": 8, "import": 1}


@pytest.mark.parametrize("group", bench.NAMES)
def test_each_group_measures_all_its_figures(
    group: str, request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = [f"--{group}", request.getfixturevalue(f"{group}_url")] if group in {"redis", "postgres"} else []
    answer = tmp_path / "answer.json"
    assert bench.main(["--quick", "--only", group, "--json", str(answer), *server]) == 0
    figures = json.loads(answer.read_text())["figures"]
    assert len(figures) == GROUPS[group]
    assert all(figure["group"] == group and figure["ours"] >= 0 for figure in figures)
    assert sum(figure["ratio"] is None for figure in figures) == (group in {"redis", "postgres"})
    shown = capsys.readouterr().out
    assert all(figure["name"] in shown for figure in figures)


def test_an_unknown_group_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.main(["--only", "redis,mongo"])
    assert "redis,mongo" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        ("benchmarks.producer", "--count", "200"),
        ("benchmarks.worker", "--count", "1000", "--rounds", "1"),
        ("benchmarks.sqlite", "--count", "400", "--rounds", "1"),
        ("benchmarks.limits.sqlite_raw", "--messages", "400", "--json"),
    ],
    ids=lambda command: command[0],
)
def test_each_script_runs_alone(command: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_peers_are_measured_by_the_same_rule_as_we_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = tmp_path / "answer.json"
    arguments = ["--only", "stem-redis", "stem-postgres", "--rounds", "1", "--scale", "0.01"]
    assert peers.main([*arguments, "--json", str(answer)]) == 0
    found = json.loads(answer.read_text())
    assert all(len(rounds) == 1 and rounds[0] > 0 for system in found.values() for rounds in system.values())
    assert "stem-postgres" in capsys.readouterr().out


def test_ticks_of_threads_and_forks_all_count(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    side.prepare(counter)
    assert side.look(counter) == (0, 0, 0)
    program = """if True:
        import os, threading
        from benchmarks.peers.side import tick
        tick()
        if os.fork() == 0:
            threads = [threading.Thread(target=lambda: [tick() for _ in range(500)]) for _ in range(4)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            os._exit(0)
        os.wait()
        tick()
    """
    environment = {**os.environ, "PEER_COUNTER": str(counter)}
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, check=True, timeout=60)
    seen = side.look(counter)
    assert seen.count == 2002
    assert 0 < seen.first < seen.last


@pytest.mark.parametrize(
    ("round", "met"),
    [
        (Round("a", 50, 100, aim=0.5), True),
        (Round("a", 49, 100, aim=0.5), False),
        (Round("a", 2.0, 1.0, aim=2.0, at_most=True), True),
        (Round("a", 2.1, 1.0, aim=2.0, at_most=True), False),
        (Round("a", 3.0, None, aim=2.0, at_most=True), False),
        (Round("a", 3.0, 1.0), None),
    ],
)
def test_an_aim_is_met_or_missed(round: Round, met: bool | None) -> None:
    (figure,) = gather("g", [round])
    assert figure.met is met
    assert ("MISSED" in table([figure])) is (met is False)


def test_a_figure_is_the_median_of_the_ratios_of_its_rounds() -> None:
    rounds = [Round("a", ours, limit, aim=0.5) for ours, limit in ((10, 100), (60, 100), (600, 1000))]
    figure = Figure("g", tuple(rounds))
    assert figure.judged == 0.6
    assert figure.met


def test_a_missed_aim_is_the_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.groups, "imports", lambda *, quick: [Round("a", 1, 10, aim=0.5)])
    assert bench.main(["--only", "import"]) == 1
    assert bench.main(["--only", "import", "--quick"]) == 0


@pytest.mark.parametrize("store", ["memory", "sqlite", "redis", "postgres"])
def test_a_short_soak_loses_nothing(
    store: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if store in {"redis", "postgres"}:
        monkeypatch.setenv(f"STEM_TEST_{store.upper()}_URL", request.getfixturevalue(f"{store}_url"))
    status = soak.main(["--broker", store, "--messages", "1000", "--backlog", "400", "--patience", "0"])
    shown = capsys.readouterr().out
    assert status == 0, shown
    assert "1,000 of 1,000 ran, 0 left" in shown


async def test_depth_times_every_length(tmp_path: Path) -> None:
    costs = await depth.measure(f"sqlite:///{tmp_path / 'depth.db'}", [600, 100], sample=300)
    assert [cost.depth for cost in costs] == [100, 600]
    assert all(cost.wall > 0 and cost.processor > 0 and cost.enqueue > 0 for cost in costs)


COUNT = 200_000


def run_of(**changes: Any) -> soak.Soak:
    """A soak that went well, but for ``changes`` in its answer."""
    seen = soak.Soak("redis", COUNT)
    seen.start = seen.end = (50 * 2**20, {"used_memory": 2**20})
    seen.samples = [(done, 50 * 2**20, {"used_memory": 2**20}) for done in range(0, COUNT, COUNT // 100)]
    seen.answer = {
        "done": COUNT,
        "total": COUNT * (COUNT - 1) // 2,
        "squares": sum(n * n for n in range(COUNT)),
        "left": 0,
        "claim_p99": [0.01] * 10,
        "seconds": [1.0] * 10,
    } | changes
    return seen


async def judged(seen: soak.Soak) -> dict[str, bool | None]:
    store = RedisStore("redis://localhost:1/0")  # never connected: judging looks at what was seen
    try:
        return {each.what.partition(":")[0]: each.met for each in soak.verdicts(seen, store)}
    finally:
        await store.close()


async def test_a_good_run_meets_every_criterion() -> None:
    found = await judged(run_of())
    assert len(found) == 6
    assert all(found.values())


@pytest.mark.parametrize(
    "changes",
    [
        {"done": COUNT - 1},
        {"left": 1},
        {"total": COUNT * (COUNT - 1) // 2 + 1},
        {"squares": 0},  # one lost and another run twice may keep the sum
    ],
)
async def test_what_is_not_conserved_is_told(changes: dict[str, int]) -> None:
    found = await judged(run_of(**changes))
    assert [what for what, met in found.items() if not met] == ["conserved"]


async def test_growth_is_told() -> None:
    seen = run_of(claim_p99=[0.01] * 9 + [0.03])
    seen.samples = [(done, 50 * 2**20 + done * 100, sizes) for done, _, sizes in seen.samples]
    seen.end = (0, {"used_memory": 4 * 2**20})
    seen.left = [Left("N:t", 3, 3), Left("odd", 1, 0, 2**19, documented=False)]
    found = await judged(seen)
    assert [what for what, met in found.items() if met] == ["conserved"]
    assert round(seen.slope) == 100


async def test_a_short_run_is_not_judged_by_its_memory() -> None:
    seen = soak.Soak("memory", 1000, answer={**run_of().answer, "done": 1000})
    assert [each.met for each in soak.verdicts(seen, MemoryStore())] == [False, True]


def test_keys_are_sorted_by_kind() -> None:
    names = ["stem:{n:q}:s5", "stem:{n:q}:once:1", "stem:n:t:0199", "stem:n:i", "stem:n:sv", "stem:n:new:1"]
    assert [_kind(name, "n") for name in names] == ["R:s0..9", "R:once", "N:t", "N:i", "N:sv", "N:new"]


def test_what_a_sqlite_file_keeps_is_counted(tmp_path: Path) -> None:
    async def look() -> list[Left]:
        store = SqliteStore(f"sqlite:///{tmp_path / 'a.db'}")
        stem, task = soak.application(store.url, "n", 60.0)
        async with stem:
            await stem.enqueue_many([task.call(n) for n in range(3)])
        try:
            return await store.left("n")
        finally:
            await store.close()

    assert asyncio.run(look()) == [Left("messages", 3, 3), Left("statuses", 3, 0)]
