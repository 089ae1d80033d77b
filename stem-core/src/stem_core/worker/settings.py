"""How a worker works: its arguments, checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from stem_core.checks import Kind, check_count, check_kind, duration, positive_duration
from stem_core.options import check_name
from stem_core.worker.resources import Resources

__all__ = ["WorkerSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """Durations in seconds. See ``Worker`` for what each means."""

    queues: tuple[str, ...] = ("default",)
    weights: tuple[int, ...] = ()
    queue_order: Literal["rotate", "strict"] = "rotate"
    concurrency: int = 100
    threads: int = 8
    processes: int = 2
    lease: float = 30.0
    prefetch: int | None = None
    max_deliveries: int = 5
    drain_timeout: float = 25.0
    unknown_task_grace: float = 60.0
    wait: float = 2.0
    linger: float = 0.002
    batch: int = 500
    max_tasks: int | None = None
    max_memory: int | None = None
    max_tasks_per_child: int | None = None
    resources: Resources = field(default_factory=Resources)
    block_limit: float | None = None

    def __post_init__(self) -> None:
        if not self.queues:
            raise ValueError("queues is empty; name at least one")
        for queue in self.queues:
            check_name(queue, "queue name")
            if self.queues.count(queue) > 1:
                raise ValueError(
                    f"queues names {queue!r} twice; to take more from it give weights: queues={{{queue!r}: 2, ...}}"
                )
        if self.queue_order not in ("rotate", "strict"):
            raise ValueError(f"queue_order={self.queue_order!r} is neither 'rotate' nor 'strict'")
        for name in ("concurrency", "threads", "processes", "max_deliveries", "batch"):
            check_count(name, getattr(self, name))
        for name in ("max_tasks", "max_tasks_per_child"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        if self.prefetch is not None:
            check_count("prefetch", self.prefetch, 0)
        if self.max_memory is not None:
            check_kind("max_memory", self.max_memory, Kind((int,), "a whole number of bytes"))
            if self.max_memory < 1:
                raise ValueError(f"max_memory={self.max_memory} must be at least 1 byte")
        for name in ("lease", "wait"):
            positive_duration(name, getattr(self, name))
        for name in ("drain_timeout", "unknown_task_grace", "linger"):
            duration(name, getattr(self, name))
        if self.weights and len(self.weights) != len(self.queues):
            raise ValueError(f"weights={self.weights} must give every queue a weight")
        for queue, weight in zip(self.queues, self.weights, strict=False):
            check_count(f"queues[{queue!r}]", weight)

    @property
    def longest_block(self) -> float:
        """Seconds the event loop may stand still before the culprit is logged: half a lease, at most 5."""
        return self.block_limit or min(self.lease / 2, 5.0)
