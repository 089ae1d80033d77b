"""What a worker process says of itself every second: to its health server, and to its supervisor as a JSON line."""

from __future__ import annotations

from typing import Protocol

import msgspec

from stem_core.operations.collector import Collector
from stem_core.operations.metrics import Family
from stem_core.worker import Worker

__all__ = ["Report", "Reporter", "Reports", "read", "write"]


class Report(msgspec.Struct, frozen=True):
    """Whether a process has reached its stores and consumes (``ready``), does what it should (``healthy``), else why
    not; and its metrics.
    """

    ready: bool
    healthy: bool
    problem: str = ""
    families: list[Family] = msgspec.field(default_factory=list)


class Reporter(Protocol):
    """What a health server asks."""

    async def report(self, *, metrics: bool = True) -> Report: ...


class Reports:
    """The reports of a worker in this process."""

    def __init__(self, worker: Worker, collector: Collector) -> None:
        self._worker = worker
        self._collector = collector

    async def report(self, *, metrics: bool = True, fresh: float = 1.0) -> Report:
        """A report; queue counts in it may be ``fresh`` seconds old.

        Without ``metrics`` nothing is awaited: a broker that is slow to count must not make a probe time out.
        """
        started, healthy = self._worker.started, self._worker.healthy()
        problem = ""
        if not started:
            problem = "it has not reached its stores yet, or it has stopped"
        elif not healthy:
            problem = "consumption stalls: no receive has completed for long, or the event loop is blocked"
        families = await self._collector.families(fresh=fresh) if metrics else []
        return Report(started and healthy, healthy, problem, families)


def write(report: Report) -> bytes:
    """A report as a line."""
    return msgspec.json.encode(report) + b"\n"


def read(line: bytes) -> Report:
    """The report in a line.

    :raises msgspec.DecodeError: it is none.
    """
    return msgspec.json.decode(line, type=Report)
