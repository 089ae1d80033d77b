"""A million messages through each store: ``make soak`` or ``python -m benchmarks.soak --broker redis``.

A producer (this process) stays a fixed backlog ahead of one worker process; results live a few seconds, so that the
store is at its working size for most of the run. Judged at the end, and the exit status is 1 when one fails:

* conserved: every number ran, none twice, nothing is left in the queue;
* worker memory flat: the median of its resident memory in the last tenth is at most 5 % or 4 MiB above that in the
  second and third;
* the store: Redis's memory comes back to within 1 MiB or 5 % of where it began, apart from documented keys that
  expire; a table, index, file or log is in the last tenth at most half or 8 MiB larger than in the third;
* at rest: nothing but documented things that expire, and no expired results where they are pruned in time;
* claims: p99 in the last tenth at most twice that of the first, or 5 ms more.

Runs below 100,000 messages print the same and are judged only by what is conserved and left. ``--depth`` measures
instead what a task costs with 1e3 to 1e6 others queued (``benchmarks/depth.py``).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import time
import uuid
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks import depth
from benchmarks.soak_stores import STORES, Left, Store
from benchmarks.soak_worker import TENTHS, application, produce, warm_up
from stem_core.worker.memory import resident

MIB = 2**20
STALLED = 60.0
ENOUGH_TO_JUDGE = 100_000
MOST_SAMPLES_A_TENTH = 20


@dataclass
class Soak:
    """What was seen of one run. Sizes in bytes, times in seconds; ``samples`` are (done, worker, store)."""

    broker: str
    messages: int
    samples: list[tuple[int, int, Mapping[str, int]]] = field(default_factory=list)
    start: tuple[int, Mapping[str, int]] = (0, {})
    after: tuple[int, Mapping[str, int]] = (0, {})
    end: tuple[int, Mapping[str, int]] = (0, {})
    left: list[Left] = field(default_factory=list)
    answer: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def during(self, first: int, last: int) -> list[tuple[int, int, Mapping[str, int]]]:
        """Samples from tenth ``first`` to ``last``, 1 to 10."""
        low, high = ((place * self.messages // TENTHS) for place in (first - 1, last))
        return [each for each in self.samples if low <= each[0] < high or each[0] == high == self.messages]

    @property
    def slope(self) -> float:
        """Bytes a task that the worker grew by, fitted from the second tenth on; 0 with too few samples."""
        seen = [(done, memory) for done, memory, _ in self.during(2, TENTHS)]
        if len({done for done, _ in seen}) < 2:
            return 0.0
        return statistics.linear_regression(*zip(*seen, strict=True)).slope


@dataclass(frozen=True)
class Verdict:
    """One criterion: what was seen, and whether it is met; None when the run was too short to tell.

    ``always``: however short.
    """

    what: str
    seen: str
    met: bool | None
    always: bool = False


async def soak(store: Store, messages: int, *, backlog: int, ttl: float, patience: float) -> Soak:
    """Run it: warm up, note where things stand, the messages, wait ``patience`` seconds for the store to be at rest."""
    namespace = f"soak{uuid.uuid4().hex[:8]}"
    seen = Soak(store.kind, messages)
    own = store.kind == "memory"
    async with _working(store.url, namespace, messages, ttl, backlog if own else None) as (worker, heard):
        stem, task = application(store.url, namespace, ttl)
        async with contextlib.AsyncExitStack() as stack:
            first = 0
            if not own:
                await stack.enter_async_context(stem)
                first = warm_up(messages)
                await produce(stem, task, range(first), backlog=backlog, done=heard.now)
                await heard.reach(first)
                await asyncio.sleep(min(ttl + 2, patience))
            heard.moved()
            seen.start = (resident(worker.pid), await store.sizes())
            began = time.perf_counter()
            sampling = asyncio.ensure_future(_sample(seen, store, worker.pid, heard))
            if not own:
                await produce(stem, task, range(first, messages), backlog=backlog, done=heard.now)
            await heard.reach(messages)
            seen.seconds = time.perf_counter() - began
            seen.after = (resident(worker.pid), await store.sizes())
            sampling.cancel()
            await _until_at_rest(store, namespace, ttl, patience)
            seen.end = (resident(worker.pid), await store.sizes())
        seen.answer = await heard.last(worker)
    seen.left = await store.left(namespace)
    await store.remove(namespace)
    return seen


class Heard:
    """What the worker process has said."""

    def __init__(self) -> None:
        self.done = 0
        self.answer: dict[str, Any] | None = None
        self.ended = False
        self._moved = time.monotonic()
        self._news = asyncio.Condition()

    def now(self) -> int:
        """How many tasks it had done lately; raises when it is gone or does nothing."""
        if self.ended:
            raise RuntimeError(f"the worker process ended after {self.done} tasks")
        if time.monotonic() - self._moved > STALLED:
            raise RuntimeError(f"the worker process did nothing for {STALLED:.0f} s after {self.done} tasks")
        return self.done

    def moved(self) -> None:
        """Take the silence until now for rest."""
        self._moved = time.monotonic()

    async def listen(self, worker: Process) -> None:
        assert worker.stdout
        async for line in worker.stdout:
            said = json.loads(line)
            async with self._news:
                if said.get("done", self.done) != self.done:
                    self.done, self._moved = said["done"], time.monotonic()
                self.answer = said if "claim_p99" in said else None
                self._news.notify_all()
        self.ended = True
        async with self._news:
            self._news.notify_all()

    async def reach(self, count: int) -> None:
        """Return when ``count`` are done."""
        async with self._news:
            await self._news.wait_for(lambda: self.done >= count or self.now() >= count)

    async def last(self, worker: Process) -> dict[str, Any]:
        """Let it stop, and give its answer."""
        assert worker.stdin
        worker.stdin.write(b"stop\n")
        await worker.stdin.drain()
        async with self._news:
            await self._news.wait_for(lambda: self.answer is not None or self.ended)
        if self.answer is None:
            raise RuntimeError("the worker process ended without an answer")
        return self.answer


@contextlib.asynccontextmanager
async def _working(
    url: str, namespace: str, messages: int, ttl: float, backlog: int | None
) -> AsyncIterator[tuple[Process, Heard]]:
    producing = ["--produce", str(backlog)] if backlog else []
    worker = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "benchmarks.soak_worker", url, namespace, "--messages", str(messages), "--ttl", str(ttl)),
        *producing,
        stdin=PIPE,
        stdout=PIPE,
    )
    heard = Heard()
    assert worker.stdout
    await worker.stdout.readline()  # ready
    listening = asyncio.ensure_future(heard.listen(worker))
    try:
        yield worker, heard
    finally:
        if not heard.answer and worker.returncode is None:
            worker.kill()
        await worker.wait()
        await listening


async def _sample(seen: Soak, store: Store, pid: int, heard: Heard) -> None:
    step = max(1, seen.messages // TENTHS // MOST_SAMPLES_A_TENTH)
    last = -step
    while True:
        if heard.done - last >= step:
            last = heard.done
            seen.samples.append((last, resident(pid), await store.sizes()))
        await asyncio.sleep(0.1)


async def _until_at_rest(store: Store, namespace: str, ttl: float, patience: float) -> None:
    """Wait for results to expire and be pruned, as long as there are any."""
    deadline = time.monotonic() + patience
    await asyncio.sleep(min(ttl + 2, patience))
    while time.monotonic() < deadline:
        if not any(each.kind == store.pruned for each in await store.left(namespace)):
            return
        await asyncio.sleep(3)


def verdicts(seen: Soak, store: Store) -> list[Verdict]:
    """Every criterion, judged."""
    long = seen.messages >= ENOUGH_TO_JUDGE
    judged = [_conserved(seen), *_worker(seen), *_returned(seen, store), *_sizes(seen, store)]
    if store.claims:
        judged.append(_claims(seen))
    if store.pruned:
        expired = sum(each.count for each in seen.left if each.kind == store.pruned)
        judged.append(Verdict("expired results pruned", f"{expired:,} left at rest", not expired))
    judged = [each if long or each.always else replace(each, met=None) for each in judged]
    return [*judged, _at_rest(seen)]


def _conserved(seen: Soak) -> Verdict:
    count, answer = seen.messages, seen.answer
    conserved = (
        answer["done"] == count
        and answer["total"] == count * (count - 1) // 2
        and answer["squares"] == (count - 1) * count * (2 * count - 1) // 6
        and answer["left"] == 0
    )
    text = f"{answer['done']:,} of {count:,} ran, {answer['left']} left"
    return Verdict("conserved: each ran once, none is left", text, conserved, always=True)


def _worker(seen: Soak) -> Iterator[Verdict]:
    early, late = ([memory for _, memory, _ in seen.during(*tenths)] for tenths in ((2, 3), (10, 10)))
    if early and late:
        before, after = statistics.median(early), statistics.median(late)
        text = (
            f"{seen.start[0] / MIB:.1f} at the start, {before / MIB:.1f} in tenths 2 and 3, {after / MIB:.1f} in "
            f"the last, {seen.end[0] / MIB:.1f} at rest; {seen.slope:+.1f} bytes a task"
        )
        yield Verdict("worker memory flat, MiB", text, after <= max(before * 1.05, before + 4 * MIB))


def _returned(seen: Soak, store: Store) -> Iterator[Verdict]:
    expiring = sum(each.bytes for each in seen.left if not each.kept)
    for name in store.returns:
        before, after = seen.start[1][name], seen.end[1][name]
        most = max((part[name] for _, _, part in seen.samples), default=after)
        text = (
            f"{before / MIB:.1f} at the start, at most {most / MIB:.1f}, {after / MIB:.1f} at rest "
            f"({expiring / MIB:.1f} of it expiring keys)"
        )
        yield Verdict(f"{name} back, MiB", text, after - expiring <= max(before * 1.05, before + MIB))


def _sizes(seen: Soak, store: Store) -> Iterator[Verdict]:
    """Those that must be flat, and the others for information."""
    for name in seen.end[1]:
        early, late = (
            [part[name] for _, _, part in seen.during(*tenths) if name in part]
            for tenths in ((3, 3), (10, 10))
        )
        if name in store.returns or not early or not late:
            continue
        before, after = max(early), max(late)
        text = (
            f"{before / MIB:.1f} in the third tenth, {after / MIB:.1f} in the last, "
            f"{seen.end[1][name] / MIB:.1f} at rest"
        )
        if name in store.flat:
            yield Verdict(f"{name} flat, MiB", text, after <= max(before * 1.5, before + 8 * MIB))
        else:
            yield Verdict(f"{name}, MiB", text, None)


def _claims(seen: Soak) -> Verdict:
    first, *_, last = seen.answer["claim_p99"]
    text = f"{first * 1e3:.1f} in the first tenth, {last * 1e3:.1f} in the last"
    return Verdict("claim p99, ms", text, last <= max(2 * first, first + 0.005))


def _at_rest(seen: Soak) -> Verdict:
    text = ", ".join(
        f"{each.count:,} {each.kind}{f' ({each.kept:,} for ever)' if each.kept else ''}" for each in seen.left
    )
    fine = not any(each.kept or not each.documented for each in seen.left)
    return Verdict("at rest only what is documented and expires", text or "nothing", fine, always=True)


def report(seen: Soak, found: list[Verdict]) -> str:
    """For people."""
    rates = [seen.messages / TENTHS / each for each in seen.answer["seconds"][1:] if each > 0]
    speed = f"{rates[0]:,.0f} a second in the second tenth, {rates[-1]:,.0f} in the last" if rates else ""
    lines = [f"{seen.broker}: {seen.messages:,} messages in {seen.seconds:.0f} s; {speed}"]
    words = {True: "met", False: "FAILED", None: "-"}
    lines += [f"  {words[each.met]:8} {each.what}: {each.seen}" for each in found]
    return "\n".join(lines)


async def run(kind: str, url: str | None, given: argparse.Namespace) -> bool:
    """One soak, printed; whether every criterion is met."""
    make: Any = STORES[kind]
    store: Store = make() if kind == "memory" else make(url)
    try:
        if given.depth:
            print(await depth.report(store.url, kind, given.depths), flush=True)
            return True
        seen = await soak(
            store, given.messages, backlog=given.backlog, ttl=given.ttl or store.ttl, patience=given.patience
        )
        found = verdicts(seen, store)
        print(report(seen, found), flush=True)
        return all(each.met is not False for each in found)
    finally:
        await store.close()


def main(arguments: list[str] | None = None) -> int:
    """Parse, run, print; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--broker", action="append", choices=sorted(STORES), help="may be repeated; without it all"
    )
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--backlog", type=int, default=20_000, help="how far the producer is ahead")
    parser.add_argument("--ttl", type=float, help="seconds a result lives (10; in memory 1)")
    parser.add_argument(
        "--patience", type=float, default=150.0, help="seconds to wait for results to expire and be pruned"
    )
    parser.add_argument("--depth", action="store_true", help="cost per task by length of the queue")
    parser.add_argument("--depths", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    given = parser.parse_args(arguments)
    urls = {
        "redis": os.environ.get("STEM_TEST_REDIS_URL"),
        "postgres": os.environ.get("STEM_TEST_POSTGRES_URL"),
    }
    kinds = given.broker or (["sqlite", "redis"] if given.depth else sorted(STORES))
    good = [asyncio.run(run(kind, urls.get(kind), given)) for kind in kinds]
    return int(not all(good))


if __name__ == "__main__":
    sys.exit(main())
