"""The runs in flight: as many at once as there are slots, the rest claimed and waiting.

From its third hand-out on, a message is a *suspect*: it may be what killed the workers that had it. A suspect
runs alone in its process until it is settled. Everything else claimed here and not started is given back first,
so that nothing innocent is charged when it kills this one too.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from stem_core.worker import outcome
from stem_core.worker.finishing import Finisher
from stem_core.worker.outcome import Finish, Succeeded
from stem_core.worker.run import Run, Stop
from stem_core.worker.story import Story

__all__ = ["SUSPECT_FROM", "Pool"]

SUSPECT_FROM: Final = 3
#: Runs shorter than this on average (seconds) are worth claiming ahead for: the next is there when one ends.
_QUICK: Final = 0.05
#: Claimed ahead of such runs: what would take this long, one after the other (seconds), or as many as run at once
#: if that is more; and at most, unless more run at once.
_AHEAD: Final = 0.02
_MOST_AHEAD: Final = 400
#: How much of the average one more run is.
_WEIGHT: Final = 0.05


class Pool:
    """Starts runs, and hands their ends to the finisher."""

    def __init__(
        self,
        story: Story,
        finisher: Finisher,
        *,
        concurrency: int,
        prefetch: int | None,
        ended: Callable[[Run, Finish | None], None],
    ) -> None:
        """:param prefetch: how many to claim ahead; None: as the runs are quick, see :data:`_AHEAD`.
        :param ended: called with each run and what is to be stored of it.
        """
        self._story = story
        self._finisher = finisher
        self._concurrency = concurrency
        self._prefetch = prefetch
        self._ended = ended
        self._waiting: deque[Run] = deque()
        self._running: set[Run] = set()
        self._changed = asyncio.Event()
        self._closed = False
        self._average = 1.0
        self._most = concurrency + (max(concurrency, _MOST_AHEAD) if prefetch is None else prefetch)
        #: What may be claimed at once; 1 after a suspect was met, and doubled by every innocent batch.
        self._claim = self._most

    @property
    def running(self) -> int:
        """How many are in a handler, or about to be."""
        return len(self._running)

    @property
    def empty(self) -> bool:
        """Whether nothing claimed is waiting or running."""
        return not self._running and not self._waiting

    @property
    def room(self) -> int:
        """How many more may be claimed now."""
        return min(self._limit - len(self._running) - len(self._waiting), self._claim)

    @property
    def _limit(self) -> int:
        """How many may be claimed and not ended."""
        if self._prefetch is not None:
            return self._most
        if self._average > _QUICK:
            return self._concurrency
        ahead = round(_AHEAD / max(self._average, 1e-6))
        return min(self._concurrency + max(self._concurrency, ahead), self._most)

    async def wait_for_room(self, most_unstored: int) -> int:
        """Wait until something may be claimed; how much."""
        while not self._closed and (self._enough_claimed() or len(self._finisher) > most_unstored):
            await self._change()
        return self.room

    def _enough_claimed(self) -> bool:
        """Whether a claim would bring nothing, or little while there is still something to start."""
        room = self.room
        return room <= 0 or (len(self._waiting) > room and room < self._claim)

    async def start(self, runs: Sequence[Run]) -> None:
        """Start them, or let them wait for a slot. A suspect among them runs alone, before this returns."""
        suspect = next((run for run in runs if is_suspect(run)), None)
        if suspect is not None and (len(self._running) or len(runs) > 1 or self._waiting):
            for run in (*self._waiting, *(run for run in runs if run is not suspect)):
                self._finisher.add(outcome.given_back(run.delivery))
            self._waiting.clear()
        if suspect is not None:
            self._claim = 1
            await self._alone(suspect)
            return
        self._claim = min(self._claim * 2, self._most)
        for run in runs:
            if len(self._running) < self._concurrency:
                self._launch(run)
            else:
                self._waiting.append(run)

    def give_back_waiting(self) -> None:
        """Give back what has not started, refunded, and start nothing more."""
        self._closed = True
        for run in self._waiting:
            self._finisher.add(outcome.given_back(run.delivery))
        self._waiting.clear()
        for run in list(self._running):
            if run.started is None:
                run.cut(Stop.SHUTDOWN)
        self._changed.set()

    def cut_all(self, stop: Stop) -> None:
        """Cut short everything that runs."""
        for run in list(self._running):
            run.cut(stop)

    async def drained(self) -> None:
        """Wait until nothing runs."""
        while not self.empty:
            await self._change()

    def learn(self, finish: Finish) -> None:
        """Let the time a run took count towards how much is claimed ahead."""
        if isinstance(finish.end, Succeeded):
            self._average += (finish.end.seconds - self._average) * _WEIGHT

    def kick(self) -> None:
        """Let those who wait look again."""
        self._changed.set()

    async def _alone(self, suspect: Run) -> None:
        await self._quiet()
        if self._closed:
            self._finisher.add(outcome.given_back(suspect.delivery))
            return
        self._launch(suspect)
        await self._quiet()

    async def _quiet(self) -> None:
        """Wait until nothing runs and everything is stored; or the pool is closed."""
        while not self._closed:
            if not self.empty:
                await self._change()
            elif not self._finisher.idle:
                await self._finisher.drained()
            else:
                return

    def _launch(self, run: Run) -> None:
        self._running.add(run)
        run.execution = asyncio.get_running_loop().create_task(self._live(run))

    async def _live(self, run: Run) -> None:
        finish: Finish | None = None
        try:
            finish = await self._story.tell(run)
        finally:
            run.over()
            self._running.discard(run)
            if finish is not None:
                self.learn(finish)
            self._ended(run, finish)
            if self._waiting and not self._closed:
                self._launch(self._waiting.popleft())
            self._changed.set()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()


def is_suspect(run: Run) -> bool:
    """Whether it may have killed those who had it, and would kill its neighbours here.

    A task in a process of its own can only kill that one.
    """
    handler = run.handler
    return run.delivery.deliveries >= SUSPECT_FROM and (handler is None or handler.isolation != "process")
