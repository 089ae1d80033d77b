"""What one worker process tells of itself: counted by event hooks, and read from its counters and queues."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Container, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from stem_core.envelope import Envelope
from stem_core.errors import StemError
from stem_core.operations.metrics import Family, Histogram, series
from stem_core.ports.broker import QueueStats
from stem_core.status import TaskError
from stem_core.wiring import Wiring
from stem_core.worker import Worker

__all__ = ["Collector", "TaskCounts", "observed"]

#: The label of a task that this process does not know: its name is whatever a producer wrote.
UNKNOWN: Final = "(unknown)"
#: Seconds for which queue counts are reused, and after which asking for them is given up.
_FRESH, _PATIENCE = 1.0, 2.0
#: Counters of ``WorkerStats`` that hooks count too, with labels; and those that are no counters.
_ELSEWHERE: Final = {
    "succeeded",
    "failed",
    "retried",
    "cancelled",
    "dead_lettered",
    "seconds",
    "running",
    "held",
}


class TaskCounts:
    """Counts task events. Its methods are event hooks; see ``stem_core.hookspecs``."""

    def __init__(self, known: Container[str]) -> None:
        """:param known: names of tasks that get a label of their own."""
        self._known = known
        self.ended: Counter[tuple[str, str, str]] = Counter()
        self.dead: Counter[tuple[str, str]] = Counter()
        self.durations: dict[tuple[str, str], Histogram] = {}
        self.waits: dict[str, Histogram] = {}

    def hooks(self) -> Mapping[str, Callable[..., None]]:
        """The hooks by name."""
        return {
            "stem_task_started": self._started,
            "stem_task_succeeded": self._succeeded,
            "stem_task_failed": self._failed,
            "stem_task_retried": self._retried,
            "stem_task_revoked": self._revoked,
            "stem_task_dead_lettered": self._dead_lettered,
        }

    def families(self) -> list[Family]:
        """What was counted so far."""
        durations: dict[str, float] = {}
        for (task, queue), histogram in self.durations.items():
            durations |= histogram.samples("stem_task_duration_seconds", {"task": task, "queue": queue})
        waits: dict[str, float] = {}
        for queue, histogram in self.waits.items():
            waits |= histogram.samples("stem_task_wait_seconds", {"queue": queue})
        return [
            Family(
                "stem_tasks_total",
                "counter",
                "Runs that ended, by outcome.",
                {
                    series("stem_tasks_total", {"task": task, "queue": queue, "outcome": outcome}): count
                    for (task, queue, outcome), count in self.ended.items()
                },
            ),
            Family(
                "stem_task_duration_seconds", "histogram", "Seconds in handlers that returned.", durations
            ),
            Family(
                "stem_task_wait_seconds",
                "histogram",
                "Lag: seconds from when a task might have run to when it did, first attempts only.",
                waits,
            ),
            Family(
                "stem_dead_letters_total",
                "counter",
                "Messages put aside, by reason.",
                {
                    series("stem_dead_letters_total", {"queue": queue, "reason": reason}): count
                    for (queue, reason), count in self.dead.items()
                },
            ),
        ]

    def _labels(self, envelope: Envelope) -> tuple[str, str]:
        return (envelope.name if envelope.name in self._known else UNKNOWN), envelope.queue

    def _started(self, envelope: Envelope, attempt: int) -> None:
        if attempt or envelope.input is not None:  # a derived message was sealed long before its publish
            return
        due = envelope.enqueued_at if envelope.not_before is None else envelope.not_before
        waited = (datetime.now(UTC) - due).total_seconds()
        self.waits.setdefault(envelope.queue, Histogram()).observe(max(0.0, waited))

    def _succeeded(self, envelope: Envelope, attempt: int, seconds: float) -> None:
        labels = self._labels(envelope)
        self.ended[*labels, "succeeded"] += 1
        self.durations.setdefault(labels, Histogram()).observe(seconds)

    def _failed(self, envelope: Envelope, attempt: int, error: TaskError, seconds: float | None) -> None:
        self.ended[*self._labels(envelope), "failed"] += 1

    def _retried(
        self, envelope: Envelope, attempt: int, error: TaskError, delay: float, seconds: float | None
    ) -> None:
        self.ended[*self._labels(envelope), "retried"] += 1

    def _revoked(self, envelope: Envelope, reason: str) -> None:
        self.ended[*self._labels(envelope), "cancelled"] += 1

    def _dead_lettered(self, id: str, queue: str, reason: str) -> None:
        self.dead[queue, reason] += 1


def observed(wiring: Wiring, counts: TaskCounts) -> Wiring:
    """``wiring`` with ``counts`` among its hooks."""
    hooks = dict(wiring.catalogue.hooks)
    for name, function in counts.hooks().items():
        hooks[name] = (*hooks.get(name, ()), function)
    return replace(wiring, catalogue=replace(wiring.catalogue, hooks=hooks))


class Collector:
    """Everything a worker tells, as families."""

    def __init__(self, worker: Worker, counts: TaskCounts) -> None:
        self._worker = worker
        self._counts = counts
        self._queues: dict[str, QueueStats] = {}
        self._asked_at = float("-inf")

    async def families(self, *, fresh: float = _FRESH) -> list[Family]:
        """Counters at this moment; queue counts may be ``fresh`` seconds old. Never fails."""
        if self._worker.started and time.monotonic() - self._asked_at >= fresh:
            self._asked_at = time.monotonic()
            await self._ask_the_broker()
        return [*self._counts.families(), *self._own(), *self._of_queues()]

    async def _ask_the_broker(self) -> None:
        broker = self._worker.stem.broker
        try:
            async with asyncio.timeout(_PATIENCE):
                self._queues = {queue: await broker.stats(queue) for queue in self._worker.settings.queues}
        except (StemError, OSError, TimeoutError):
            self._queues = {}  # no number is better than an old one

    def _own(self) -> list[Family]:
        stats = msgspec.structs.asdict(self._worker.stats)
        adjusted = self._worker.stem.adjustment_counts
        return [
            _gauge("stem_worker_running", "Tasks in a handler right now.", stats["running"]),
            _gauge("stem_worker_held", "Messages claimed and not settled right now.", stats["held"]),
            _gauge(
                "stem_worker_ready",
                "Processes that consume.",
                float(self._worker.started and self._worker.healthy()),
            ),
            Family(
                "stem_worker_events_total",
                "counter",
                "What happened to messages and to the worker besides the outcomes of tasks.",
                {
                    series("stem_worker_events_total", {"event": name}): value
                    for name, value in stats.items()
                    if name not in _ELSEWHERE
                },
            ),
            Family(
                "stem_adjustments_total",
                "counter",
                "Options that the adapters could not do as asked when this process enqueued.",
                {
                    series("stem_adjustments_total", {"option": name}): n
                    for name, n in sorted(adjusted.items())
                },
            ),
        ]

    def _of_queues(self) -> list[Family]:
        messages: dict[str, float] = {}
        oldest: dict[str, float] = {}
        for queue, stats in self._queues.items():
            for state in ("ready", "scheduled", "leased", "dead"):
                key = series("stem_queue_messages", {"queue": queue, "state": state})
                messages[key] = getattr(stats, state)
            key = series("stem_queue_oldest_ready_seconds", {"queue": queue})
            oldest[key] = stats.oldest_ready_age or 0.0
        return [
            Family("stem_queue_messages", "gauge", "Messages in a queue, by state.", messages, "max"),
            Family(
                "stem_queue_oldest_ready_seconds",
                "gauge",
                "Age of the oldest message that nobody has claimed; 0 when there is none.",
                oldest,
                "max",
            ),
        ]


def _gauge(name: str, help: str, value: Any) -> Family:
    return Family(name, "gauge", help, {name: float(value)})
