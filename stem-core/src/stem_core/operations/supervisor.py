"""``--processes N``: keeps N worker processes running, and is asked for their health in one place.

A process that ends is started again: at once after recycling or a changed file, else after a pause with full
jitter whose bound doubles. One that was shut down from afar (exit status 0) stays down, and the last one to do so
ends the supervisor. One that is wired wrongly (exit status 2 before it was ready) ends it too: it would fail for
ever. The first SIGTERM or SIGINT is passed on and lets tasks end, the second hurries, the third, or
time, kills.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Final

import msgspec

from stem_core.operations.health import Address, HealthServer
from stem_core.operations.metrics import Family, merge
from stem_core.operations.reports import Report, read
from stem_core.operations.serving import REPORT_EVERY
from stem_core.worker.signals import StopSignals

__all__ = ["LINE_FLAG", "RECYCLED", "Supervisor"]

_log = logging.getLogger("stem.supervisor")

#: Added to a child's command with the number of its end of the line.
LINE_FLAG: Final = "--supervised-by"
#: Exit status of a supervised process that wants to be started afresh (EX_TEMPFAIL of sysexits.h).
RECYCLED: Final = 75
#: Exit status of a process that can never work; see ``stem_core.cli``.
_MISUSED: Final = 2
#: Exit status of a process that never was: EX_OSERR of sysexits.h.
_NOT_STARTED: Final = 71
#: Seconds without a report after which a process is not healthy.
_SILENCE: Final = 5 * REPORT_EVERY
#: Seconds a process must have been ready for its next failure to be a first one.
_SETTLED: Final = 30.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
#: Seconds beyond the drain after which a process is killed.
_GRACE: Final = 5.0
#: Most bytes of a report.
_MOST: Final = 16 * 1024 * 1024


class Child:
    """One place for a process, and the process in it now."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: asyncio.subprocess.Process | None = None
        self.report: Report | None = None
        self.heard_at = 0.0
        self.ready_at: float | None = None
        self.status = 0
        #: Set when it is to be started again at once, whatever it ended with.
        self.again = asyncio.Event()
        #: It was shut down from afar, and stays down.
        self.dismissed = False

    def begin(self, process: asyncio.subprocess.Process) -> None:
        """A process was started."""
        self.process, self.report, self.ready_at = process, None, None

    def end(self, status: int) -> list[Family]:
        """It has ended; returns what of its metrics lasts."""
        lasting = [each for each in self.report.families if each.kind != "gauge"] if self.report else []
        self.status, self.process, self.report = status, None, None
        return lasting

    @property
    def problem(self) -> str:
        """Why it is not healthy; empty when it is."""
        if self.dismissed:
            return ""
        if self.process is None:
            return f"process {self.number} is not running"
        if self.report is None:
            return f"process {self.number} is starting"
        if time.monotonic() - self.heard_at > _SILENCE:
            return f"process {self.number} has said nothing for {time.monotonic() - self.heard_at:.0f} s"
        if not self.report.healthy:
            return f"process {self.number}: {self.report.problem}"
        return ""

    @property
    def ready(self) -> bool:
        """Whether it consumes, as far as is known now."""
        return self.report is not None and self.report.ready and not self.problem

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if there is a process."""
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)


class Supervisor:
    """Keeps ``processes`` processes running."""

    def __init__(
        self,
        command: Callable[[int], Sequence[str]],
        *,
        processes: int,
        drain_timeout: float,
        health: Address | None = None,
        changes: AsyncIterator[Sequence[str]] | None = None,
    ) -> None:
        """:param command: starts the process of a number from 1; it is given ``LINE_FLAG`` and a descriptor more.
        :param changes: names of changed files; each time everything is started again.
        """
        self._command = command
        self._drain_timeout = drain_timeout
        self._health = health
        self._changes = changes
        self._children = [Child(number) for number in range(1, processes + 1)]
        self._stopping = asyncio.Event()
        self._restarts = 0
        self._failure = 0
        self._departed: list[Family] = []

    async def report(self, *, metrics: bool = True) -> Report:
        """All processes as one: healthy when each is, ready when one is; counters include those that ended.

        They are at hand, so ``metrics`` makes no difference.
        """
        problems = [each.problem for each in self._children if each.problem]
        reports = [each.report for each in self._children if each.report is not None]
        own = [
            _counter("stem_supervisor_restarts_total", "Processes that were started again.", self._restarts),
            Family(
                "stem_supervisor_processes",
                "gauge",
                "Processes that are to run, and that are healthy.",
                {
                    'stem_supervisor_processes{state="wanted"}': len(self._children),
                    'stem_supervisor_processes{state="healthy"}': len(self._children) - len(problems),
                },
            ),
        ]
        families = merge([self._departed, *(each.families for each in reports), own])
        ready = not self._stopping.is_set() and any(each.ready for each in self._children)
        return Report(ready, not problems, "; ".join(problems), families)

    async def run(self) -> int:
        """Run until told to stop; returns the exit status."""
        async with AsyncExitStack() as stack:
            stack.enter_context(StopSignals(self._on_signal))
            if self._health is not None:
                await stack.enter_async_context(HealthServer(self._health, self))
            watching = asyncio.create_task(self._watch()) if self._changes is not None else None
            try:
                await asyncio.gather(*map(self._keep, self._children))
            finally:
                for each in self._children:
                    each.signal(signal.SIGKILL)
                if watching is not None:
                    watching.cancel()
                    await asyncio.gather(watching, return_exceptions=True)
        return self._failure or int(any(each.status not in {0, RECYCLED} for each in self._children))

    def _on_signal(self, count: int) -> None:
        self._stopping.set()
        for each in self._children:
            each.signal(signal.SIGTERM if count < 3 else signal.SIGKILL)

    async def _watch(self) -> None:
        assert self._changes is not None
        async for names in self._changes:
            _log.info("Changed: %s; starting again", ", ".join(names))
            for each in self._children:
                each.again.set()  # ends the pause of one that could not start, too
                each.signal(signal.SIGTERM)

    async def _keep(self, child: Child) -> None:
        pause = _FIRST_PAUSE
        while not self._stopping.is_set():
            child.again.clear()
            try:
                await self._live(child)
            except OSError as error:  # too many processes or open files just now: others run on
                _log.error("Process %d could not be started: %s", child.number, error)
                child.end(_NOT_STARTED)
            if self._stopping.is_set():
                if child.status == -signal.SIGTERM and child.ready_at is None:
                    child.status = 0  # told to stop while it was starting, when it has nothing to drain
                return
            settled = child.ready_at is not None and time.monotonic() - child.ready_at >= _SETTLED
            if self._hopeless(child):
                return
            if child.status == 0 and child.ready_at is not None and not child.again.is_set():
                _log.info("Process %d was shut down and stays down", child.number)
                child.dismissed = True
                return
            self._restarts += 1
            if child.status == RECYCLED or child.again.is_set():
                pause = _FIRST_PAUSE
                continue
            pause = _FIRST_PAUSE if settled else pause
            delay = random.uniform(0.0, pause)
            _log.error("Process %d ended with %s; again in %.1f s", child.number, _how(child.status), delay)
            pause = min(pause * 2, _LONGEST_PAUSE)
            await self._sleep(child, delay)

    def _hopeless(self, child: Child) -> bool:
        if child.status != _MISUSED or child.ready_at is not None or self._changes is not None:
            return False
        self._failure = _MISUSED
        self._on_signal(1)
        return True

    async def _live(self, child: Child) -> None:
        """Start a process and be with it until it ends."""
        ours, theirs = socket.socketpair()
        with theirs, contextlib.ExitStack() as unless_started:
            unless_started.callback(ours.close)
            # A session of its own: a ^C at the terminal is for the supervisor, which passes it on once.
            process = await asyncio.create_subprocess_exec(
                *self._command(child.number),
                LINE_FLAG,
                str(theirs.fileno()),
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
            unless_started.pop_all()
        child.begin(process)
        reader, writer = await asyncio.open_connection(sock=ours, limit=_MOST)
        _log.info("Process %d has started (pid %d)", child.number, process.pid)
        listening = asyncio.create_task(_listen(child, reader))
        if self._stopping.is_set():  # the signal came while it was being started
            child.signal(signal.SIGTERM)
        try:
            status = await self._ended(process)
            await asyncio.wait((listening,), timeout=1.0)  # its last words are read to their end
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            writer.close()
        self._departed = merge([self._departed, child.end(status)])

    async def _ended(self, process: asyncio.subprocess.Process) -> int:
        """Its exit status; killed when it outlives a stop by more than the drain."""
        waiting = asyncio.create_task(process.wait())
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait((waiting, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                await asyncio.wait((waiting,), timeout=self._drain_timeout + _GRACE)
            if not waiting.done():
                _log.error("Process %d does not stop and is killed", process.pid)
                process.kill()
            return await waiting
        finally:
            stopping.cancel()

    async def _sleep(self, child: Child, delay: float) -> None:
        waits = [asyncio.create_task(self._stopping.wait()), asyncio.create_task(child.again.wait())]
        try:
            await asyncio.wait(waits, timeout=delay, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()


async def _listen(child: Child, reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(OSError, ValueError):
        while line := await reader.readline():
            try:
                child.report = read(line)
            except msgspec.DecodeError:
                continue  # the last words of a process that was killed
            child.heard_at = time.monotonic()
            if child.report.ready and child.ready_at is None:
                child.ready_at = child.heard_at


def _counter(name: str, help: str, value: float) -> Family:
    return Family(name, "counter", help, {name: value})


def _how(status: int) -> str:
    if status < 0:
        try:
            return signal.Signals(-status).name
        except ValueError:
            return f"signal {-status}"
    return f"exit status {status}"
