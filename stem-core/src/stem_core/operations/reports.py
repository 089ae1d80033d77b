"""What a worker process says of itself every second: to its health server, and to its supervisor as a JSON line."""

from __future__ import annotations

from typing import Protocol

import msgspec

from stem_core.operations.collector import Collector
from stem_core.operations.metrics import Family
from stem_core.worker import Worker

__all__ = ["Report", "Reporter", "Reports", "read", "write"]


class Report(msgspec.Struct, frozen=True):
    """Whether a process consumes (``ready``), does what it should (``healthy``), else why not; and its metrics."""

    ready: bool
    healthy: bool
    problem: str = ""
    families: list[Family] = msgspec.field(default_factory=list)


class Reporter(Protocol):
    """What a health server asks."""

    async def report(self) -> Report: ...


class Reports:
    """The reports of a worker in this process."""

    def __init__(self, worker: Worker, collector: Collector) -> None:
        self._worker = worker
        self._collector = collector

    async def report(self, *, fresh: float = 1.0) -> Report:
        """A report; queue counts in it may be ``fresh`` seconds old."""
        ready, healthy = self._worker.started, self._worker.healthy()
        problem = ""
        if not ready:
            problem = "it has not reached its stores yet, or it has stopped"
        elif not healthy:
            problem = "consumption stalls: no receive has completed for long, or the event loop is blocked"
        return Report(ready, healthy, problem, await self._collector.families(fresh=fresh))


def write(report: Report) -> bytes:
    """A report as a line."""
    return msgspec.json.encode(report) + b"\n"


def read(line: bytes) -> Report:
    """The report in a line.

    :raises msgspec.DecodeError: it is none.
    """
    return msgspec.json.decode(line, type=Report)
