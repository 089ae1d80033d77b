"""Stem beside what the machine allows, in one run: ``make bench`` or ``python -m benchmarks``.

Every figure is a ratio to a limit measured in the same run: the same bytes moved by a driver or by asyncio alone,
with nothing of ours. Starts Valkey and PostgreSQL unless STEM_TEST_REDIS_URL or STEM_TEST_POSTGRES_URL (or
``--redis``, ``--postgres``) say where one runs. The exit status is 1 when an aim is missed; with ``--quick``, which
only shows that everything runs, it is not.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import groups
from benchmarks.figures import Figure, Round, gather, table
from tests.servers import PostgresServer, Server, ValkeyServer

NAMES = ("memory", "sqlite", "redis", "postgres", "signing", "import")


def measure(name: str, *, quick: bool, redis: str | None, postgres: str | None) -> list[Figure]:
    """The figures of one group, on servers that are started for it where no URL is given."""
    alone: dict[str, Callable[..., Iterator[Round]]] = {
        "memory": groups.memory,
        "sqlite": groups.sqlite_file,
        "signing": groups.signing,
        "import": groups.imports,
    }
    if name in alone:
        return gather(name, alone[name](quick=quick))
    if name == "redis":
        with served(redis, ValkeyServer) as url:
            return gather(name, groups.redis(url, quick=quick))
    with served(postgres, PostgresServer) as url:
        return gather(name, groups.postgres(url, quick=quick))


@contextlib.contextmanager
def served(url: str | None, kind: Callable[[], Server]) -> Iterator[str]:
    """``url``, or that of a server of ``kind`` that lives as long as the block."""
    if url:
        yield url
    else:
        with kind() as server:
            yield server.url


def machine() -> dict[str, object]:
    """What it ran on, as far as ratios may depend on it."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
    }


def save(path: Path, figures: list[Figure], load: list[float], *, quick: bool) -> None:
    """Write the figures so far."""
    answer = {
        "machine": machine(),
        "load": load,
        "quick": quick,
        "figures": [figure.as_json() for figure in figures],
    }
    path.write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")


def chosen(text: str) -> list[str]:
    """Group names from ``a,b``; argparse's error for one that is unknown."""
    names = [name for name in text.split(",") if name]
    unknown = [name for name in names if name not in NAMES]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"{text!r}: expected some of {','.join(NAMES)}")
    return names


def main(arguments: list[str] | None = None) -> int:
    """Parse, run, print; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", type=chosen, default=list(NAMES), help=f"some of {','.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="tiny counts: shows that it runs, not how fast")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument("--redis", default=os.environ.get("STEM_TEST_REDIS_URL"), metavar="URL")
    parser.add_argument("--postgres", default=os.environ.get("STEM_TEST_POSTGRES_URL"), metavar="URL")
    given = parser.parse_args(arguments)
    began, load = time.perf_counter(), [os.getloadavg()[0]]
    figures: list[Figure] = []
    for name in given.only:
        found = measure(name, quick=given.quick, redis=given.redis, postgres=given.postgres)
        print(f"{table(found)}\n", flush=True)
        figures += found
        load.append(os.getloadavg()[0])
        if given.json:  # after each group, so that a later one that fails takes nothing along
            save(given.json, figures, load, quick=given.quick)
    missed = [figure for figure in figures if figure.met is False]
    print(
        f"{len(figures)} figures in {time.perf_counter() - began:.0f} s, {len(missed)} of their aims missed; "
        f"load of the machine {min(load):.1f} to {max(load):.1f} on {os.cpu_count()} cores"
    )
    if given.quick:
        print("--quick: too few of everything to judge by")
    return int(bool(missed) and not given.quick)


if __name__ == "__main__":
    sys.exit(main())
