"""Stem's main job on real work: ``make demo``.

Hashes, counts and summarises every Python file of this repository in two worker processes, on one SQLite
file; then renders a report, and shows a retry, a delay, and a dead letter that is mended and replayed.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stem_core import TaskFailed

HERE = Path(__file__).parent
ROOT = HERE.parent
WORKERS = 2


def source_files() -> list[str]:
    found = [path for package in ROOT.glob("stem-*") for path in package.rglob("*.py")]
    found += [*(ROOT / "tests").rglob("*.py"), *HERE.glob("*.py")]
    return sorted(str(path.relative_to(ROOT)) for path in found)


def start_workers(folder: Path) -> list[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "stem_core.cli", "worker", "demo_tasks:stem", "--concurrency", "20"]
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    log = (folder / "workers.log").open("wb")
    return [subprocess.Popen(command, cwd=ROOT, env=environment, stderr=log) for _ in range(WORKERS)]


def show_progress(done: int, total: int) -> None:
    width = 40
    filled = width * done // total
    if filled == width * (done - 1) // total:
        return  # the bar has not moved
    end = "\n" if done == total else ""
    start = "\r" if sys.stdout.isatty() else "" if done == total else None
    if start is not None:
        print(f"{start}  [{'#' * filled}{'.' * (width - filled)}] {done}/{total}", end=end, flush=True)


async def gather(handles: Sequence[Any]) -> list[Any]:
    """Every result, in order, with a progress bar."""
    done = 0

    async def one(handle: Any) -> Any:
        nonlocal done
        result = await handle.result(timeout=60)
        done += 1
        show_progress(done, len(handles))
        return result

    return list(await asyncio.gather(*map(one, handles)))


def table(rows: Sequence[Sequence[object]]) -> None:
    widths = [max(len(str(row[column])) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [
            str(cell).rjust(width) if isinstance(cell, int) else str(cell).ljust(width)
            for cell, width in zip(row, widths, strict=True)
        ]
        print("  " + "  ".join(cells).rstrip())


async def dead_letter(folder: Path) -> str:
    """A task fails for good; its cause is mended, and it is replayed."""
    from demo_tasks import needs_configuration, stem

    needed = folder / "configuration.txt"
    handle = await needs_configuration.enqueue(str(needed))
    try:
        await handle.result(timeout=30)
    except TaskFailed as error:
        print(f"  it failed, as it should: {error}")
    page = await stem.dead_letters.list("default", ids=[handle.id])
    for each in page.items:
        print(f"  dead letter {each.message.id}: {each.reason} ({each.detail.splitlines()[-1]})")
    needed.write_text("now it is here", encoding="utf-8")
    replayed = await stem.dead_letters.replay("default", ids=[handle.id])
    print(f"  the file was written, the dead letter replayed (generation {replayed[0][1]})")
    return str(await handle.result(timeout=30))


async def run(folder: Path) -> None:
    from demo_tasks import Summary, count_tokens, digest, flaky, reminder, render_report, stem, summarise

    files = source_files()
    async with stem:
        print(f"{len(files)} files, {3 * len(files)} tasks, {WORKERS} worker processes, one SQLite file")
        started = time.perf_counter()
        later = await reminder.with_options(countdown=2).enqueue()
        retried = await flaky.enqueue()
        handles = await stem.enqueue_many(
            [*map(digest.call, files), *map(count_tokens.call, files), *map(summarise.call, files)]
        )
        results = await gather(handles)
        took = time.perf_counter() - started
        digests, summaries = results[: len(files)], results[2 * len(files) :]
        tokens = sum(sum(each.values()) for each in results[len(files) : 2 * len(files)])
        print(f"  {tokens:,} tokens counted; {len(set(digests))} different contents; {took:.1f} s")

        print("\nThe largest files, from the results:")
        largest: list[Summary] = sorted(summaries, key=lambda each: -each.lines)[:8]
        table(
            [
                ("file", "lines", "functions", "classes"),
                *((each.path, each.lines, each.functions, each.classes) for each in largest),
            ]
        )

        report = folder / "report.md"
        lines = await (await render_report.enqueue(summaries, str(report))).result(timeout=30)
        print(f"\nA report of {lines} lines was rendered by a task ({report.stat().st_size:,} bytes).")
        print(f"A task that failed twice: {await retried.result(timeout=30)}.")
        print(f"A task with a countdown of 2 s: {await later.result(timeout=30)}.")
        print("\nA task that cannot succeed:")
        print(f"  and it answered: {await dead_letter(folder)!r}")
        statuses = [await handle.status() for handle in (retried, later)]
        assert all(status and status.state == "succeeded" for status in statuses)
        assert len(results) == 3 * len(files)


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="stem-demo-") as name:
        folder = Path(name)
        os.environ["STEM_DEMO_URL"] = f"sqlite:///{folder / 'demo.db'}"
        sys.path.insert(0, str(HERE))
        os.chdir(ROOT)
        workers = start_workers(folder)
        try:
            asyncio.run(run(folder))
        except BaseException:
            print((folder / "workers.log").read_text(errors="replace")[-4000:], file=sys.stderr)
            raise
        finally:
            for worker in workers:
                worker.terminate()
            codes = [worker.wait(timeout=30) for worker in workers]
        print(f"\nBoth workers drained and stopped (exit status {codes}).")
        return 1 if any(codes) else 0


if __name__ == "__main__":
    sys.exit(main())
