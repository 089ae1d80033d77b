"""A worker that dies at the k-th step of its way: adapters that stop answering there, for good.

Each call of an adapter is two places to die at: before it has an effect, and after, with the reply lost. What the
worker still tries on its way down is refused, so nothing it does in a ``finally`` counts.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

from stem_core import Stem
from stem_core.clock import ManualClock
from stem_core.plugins import Catalogue
from stem_core.ports.specs import AdapterOptions
from stem_core.worker import Worker

LEASE = 30.0
#: Not on the way of a task: asked on the side, by time.
ASIDE = {"open", "close", "stats", "list", "subscribe", "broadcast", "wait"}
ASIDE_KEYS = ("worker:", "pause:", "revoked:")


class Killed(BaseException):
    """The process is gone."""


class Fate:
    """Counts steps; at the given one everything ends."""

    def __init__(self, step: int | None) -> None:
        self.step = step
        self.steps = 0
        self.dead = asyncio.Event()
        self.where = ""

    def pass_by(self, where: str) -> None:
        if self.dead.is_set():
            raise Killed(self.where)
        self.steps += 1
        if self.steps == self.step:
            self.where = where
            self.dead.set()
            raise Killed(where)


class Mortal:
    """An adapter whose coroutine methods pass by fate."""

    def __init__(self, inner: Any, fate: Fate, *, joins: bool = True) -> None:
        self.inner = inner
        self._fate = fate
        self._joins = joins

    def join(self, backend: Mortal) -> Any:
        committer = self.inner.join(backend.inner) if self._joins else None
        return None if committer is None else Mortal(committer, self._fate)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)
        if name in ASIDE or not inspect.iscoroutinefunction(method):
            return method

        async def mortal(*args: Any, **kwargs: Any) -> Any:
            if name.startswith("state_") and str(args[0]).startswith(ASIDE_KEYS):
                return await method(*args, **kwargs)
            self._fate.pass_by(f"before {name}")
            answer = await method(*args, **kwargs)
            self._fate.pass_by(f"after {name}")
            return answer

        return mortal


class World:
    """One memory store on a clock that stands still, and Stems that share it."""

    def __init__(self, catalogue: Catalogue, *, joined: bool) -> None:
        self.clock = ManualClock()
        self.catalogue = catalogue
        self.joined = joined
        self._options = AdapterOptions(clock=self.clock)

    def stem(self, fate: Fate | None = None) -> Stem:
        fate = fate or Fate(None)
        broker = self.catalogue.broker("memory://").open("memory://", self._options)
        backend = self.catalogue.backend("memory://").open("memory://", self._options)
        mortals: Any = Mortal(broker, fate, joins=self.joined), Mortal(backend, fate)
        stem = Stem(mortals[0], backend=mortals[1], plugins=self.catalogue)
        stem.wiring.clock = self.clock
        return stem

    async def work(self, stem: Stem, fate: Fate | None = None) -> bool:
        """Let a worker work until there is nothing left, or until its fate; whether it lived."""
        worker = Worker(stem, lease=LEASE, clock=self.clock, max_deliveries=100, concurrency=4, wait=0.005)
        working = asyncio.ensure_future(worker.run(until_empty=True))
        ends = [working]
        if fate is not None:
            ends.append(asyncio.ensure_future(fate.dead.wait()))  # type: ignore[arg-type]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if fate is None or not fate.dead.is_set():
            for end in ends[1:]:
                end.cancel()
            await working
            return True
        mine = asyncio.all_tasks() - {asyncio.current_task()}
        for task in mine:
            task.cancel()
        await asyncio.gather(*mine, return_exceptions=True)
        return False
