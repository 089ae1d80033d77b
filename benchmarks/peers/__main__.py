"""Stem beside its peers, in one interleaved run on the same servers: ``make peers`` or ``python -m benchmarks.peers``.

No-op tasks with a hundred bytes of argument. ``enqueue``: one by one from one process, the way each library's guide
shows. ``drain``: one worker as its documentation starts it, from the first task's start to the last one's, with all of
them queued before. ``start``: from the call of enqueue to the task's first line, on an idle worker. Each system runs
the libraries of its own environment under ``.venv-peers/``, which this makes; servers are started for the run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.peers import side
from benchmarks.peers.systems import SYSTEMS, System
from tests.servers import PostgresServer, Server, ValkeyServer

ROOT = Path(__file__).parents[2]
HOPS = 100
PATIENCE = 120.0
#: Nothing happened for so long after the last start: then the worker is done, or lost what is missing.
QUIET = 10.0


@dataclass
class Measured:
    """Rounds of one system: tasks a second, and seconds."""

    enqueue: list[float] = field(default_factory=list)
    drain: list[float] = field(default_factory=list)
    start: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Place:
    """Where one system runs: its commands, its server and the file its tasks tick in."""

    system: System
    bin: Path
    url: str
    folder: Path

    @property
    def counter(self) -> Path:
        return self.folder / "counter"

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PEER_URL": self.url,
            "PEER_COUNTER": str(self.counter),
            "PYTHONPATH": str(ROOT),
        }

    def command(self, words: Sequence[str]) -> list[str]:
        return [str(self.bin / words[0]), *(word.format(url=self.url) for word in words[1:])]


def prepared(system: System) -> Path:
    """The ``bin`` folder with the system's commands; made when it is not there."""
    if system.ours:
        return Path(sys.executable).parent
    environment = ROOT / ".venv-peers" / system.name
    if not (environment / "made").exists():
        uv, python = ROOT / ".uv/bin/uv", environment / "bin/python"
        for command in (
            [uv, "venv", "-q", "--clear", "--python", sys.executable, environment],
            [uv, "pip", "install", "-q", "--python", python, *system.requires],
        ):
            # Elsewhere, or uv would hold the peers to this workspace's own pins.
            subprocess.run(command, check=True, cwd=tempfile.gettempdir())
        (environment / "made").touch()
    return environment / "bin"


@contextlib.contextmanager
def producer(place: Place) -> Iterator[subprocess.Popen[str]]:
    """The system's app as a program that answers on its standard streams."""
    process = subprocess.Popen(
        [place.bin / "python", "-m", place.system.app],
        cwd=ROOT,
        env=place.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.communicate()


def ask(process: subprocess.Popen[str], words: str) -> object:
    """One command to a producer, and what it answered."""
    assert process.stdin
    assert process.stdout
    process.stdin.write(words + "\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        raise RuntimeError(f"the producer ended while it did {words!r}")
    return json.loads(answer)


@contextlib.contextmanager
def worker(place: Place) -> Iterator[None]:
    """One worker, as a process group of its own."""
    with (place.folder / "worker.log").open("w") as log:
        process = subprocess.Popen(
            place.command(place.system.worker),
            cwd=ROOT,
            env=place.environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def started(place: Place, count: int) -> side.Seen:
    """Wait until ``count`` tasks have started. RuntimeError when they do not, with the worker's last lines."""
    end, before = time.monotonic() + PATIENCE, side.Seen(0, 0, 0)
    moved = time.monotonic()
    while (seen := side.look(place.counter)).count < count:
        if seen.count != before.count:
            moved, before = time.monotonic(), seen
        if time.monotonic() > end or (before.count and time.monotonic() - moved > QUIET):
            tail = (place.folder / "worker.log").read_text()[-2000:]
            raise RuntimeError(f"{place.system.name}: {seen.count} of {count} tasks started\n{tail}")
        time.sleep(0.02)
    return seen


def measure(place: Place, measured: Measured, *, scale: float) -> None:
    """One round of one system on its empty server."""
    system = place.system
    singles, drain, hops = (max(20, int(count * scale)) for count in (system.singles, system.drain, HOPS))
    side.prepare(place.counter)
    if system.setup:
        subprocess.run(
            place.command(system.setup), cwd=ROOT, env=place.environment, check=True, capture_output=True
        )
    with producer(place) as process:
        ask(process, "enqueue 20")  # connect, import, prepare
        took = ask(process, f"enqueue {singles}")
        assert isinstance(took, float)
        measured.enqueue.append(singles / took)
        ask(process, f"enqueue {max(0, drain - singles - 20)}")
        total = max(drain, singles + 20)
        with worker(place):
            seen = started(place, total)
            measured.drain.append((total - 1) / ((seen.last - seen.first) / 1e9))
            hop = ask(process, f"latency {hops}")
            assert isinstance(hop, list)
            measured.start.append(statistics.median(hop))


@contextlib.contextmanager
def empty(kind: str) -> Iterator[str]:
    """The URL of a server of its own, so that nobody finds what another left."""
    kinds: dict[str, type[Server]] = {"redis": ValkeyServer, "postgres": PostgresServer}
    with kinds[kind]() as server:
        yield server.url


def table(results: dict[str, Measured]) -> str:
    """Medians of the rounds, and in brackets how many times the Stem on the same kind of server does."""
    lines = [f"{'':16}{'enqueue/s':>20}{'drain/s':>20}{'start p50, ms':>22}   as"]
    for system in SYSTEMS:
        if (found := results.get(system.name)) is None or not found.start:
            continue
        ours = results.get(f"stem-{system.server}")
        enqueue, drain, start = (
            statistics.median(each) for each in (found.enqueue, found.drain, found.start)
        )
        more = ("", "", "")
        if ours is not None and ours.start and not system.ours:
            more = (
                f" ({statistics.median(ours.enqueue) / enqueue:.1f}x)",
                f" ({statistics.median(ours.drain) / drain:.1f}x)",
                f" ({start / statistics.median(ours.start):.1f}x)",
            )
        cells = (f"{enqueue:,.0f}{more[0]}", f"{drain:,.0f}{more[1]}", f"{start * 1e3:.2f}{more[2]}")
        lines.append(f"{system.name:16}{cells[0]:>20}{cells[1]:>20}{cells[2]:>22}   {system.note}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Parse, run, print; the exit status."""
    names = [system.name for system in SYSTEMS]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names)
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="of every count; 0.01 shows that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rounds there, too")
    given = parser.parse_args(arguments)
    systems = [system for system in SYSTEMS if system.name in given.only]
    bins = {system.name: prepared(system) for system in systems}
    results = {system.name: Measured() for system in systems}
    for turn in range(given.rounds):
        for system in systems:
            with tempfile.TemporaryDirectory() as folder, empty(system.server) as url:
                place = Place(system, bins[system.name], url, Path(folder))
                try:
                    measure(place, results[system.name], scale=given.scale)
                except RuntimeError as error:  # one that stumbles does not take the others along
                    print(f"{system.name}, round {turn + 1}: {error}", file=sys.stderr, flush=True)
        print(
            f"round {turn + 1} of {given.rounds}, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True
        )
    print(table(results))
    if given.json:
        answer = {name: vars(measured) for name, measured in results.items()}
        given.json.write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")
    return int(not all(measured.start for measured in results.values()))


if __name__ == "__main__":
    sys.exit(main())
