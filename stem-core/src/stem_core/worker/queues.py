"""In which order a worker looks at its queues."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Literal

__all__ = ["QueuePlan"]


class QueuePlan:
    """The receives of one turn, as (queues, wait) pairs: the first that brings something ends the turn.

    ``rotate``: one receive of all queues, which share fairly (law 9). ``strict``: each queue only when those
    before it are empty. Weighted: the queue to look at first is drawn by weight, the others fill in when it is
    empty. A paused queue is left out.
    """

    def __init__(
        self,
        queues: Sequence[str],
        order: Literal["rotate", "strict"] = "rotate",
        weights: Sequence[int] = (),
        draw: random.Random | None = None,
    ) -> None:
        self._queues = tuple(queues)
        self._strict = order == "strict"
        self._weights = dict(zip(queues, weights, strict=True)) if weights else {}
        self._draw = draw or random.Random()
        #: Queues nothing is claimed from: paused on this worker, or on all of them.
        self.paused: frozenset[str] = frozenset()
        self.paused_for_all: frozenset[str] = frozenset()

    @property
    def any_active(self) -> bool:
        """Whether something may be claimed at all."""
        return not (self.paused | self.paused_for_all).issuperset(self._queues)

    def turns(self, wait: float) -> Iterator[tuple[tuple[str, ...], float]]:
        """What to ask, in order; the last may wait for work."""
        paused = self.paused | self.paused_for_all
        active = tuple(queue for queue in self._queues if queue not in paused)
        if not active:
            return
        if len(active) > 1:
            if self._strict:
                for queue in active:
                    yield (queue,), 0.0
            elif self._weights:
                weights = [self._weights[queue] for queue in active]
                yield (self._draw.choices(active, weights)[0],), 0.0
        yield active, wait
