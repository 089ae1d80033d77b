"""The lease keeper: every held delivery is renewed in one batched call each third of its lease.

The deadline kept here is local and monotonic, counted from before the request was sent, so it is never later
than the store's. When no renewal succeeded a sixth of a lease before it, or the store says so, the
lease is lost: the run is cut short, and neither acked nor recorded.

The keeper is a coroutine on the worker's loop. A thread that holds the GIL, or a handler that blocks the loop,
delays it: with the default lease of 30 s by up to 20 s before the lease is in danger; a lease of 1 s survives 0.6 s.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable

from stem_core.errors import LeaseLost, StemError
from stem_core.ports.broker import Broker
from stem_core.worker.run import Run, Stop

__all__ = ["LeaseKeeper"]

_log = logging.getLogger("stem.worker")


class LeaseKeeper:
    """Holds what was claimed until it is settled."""

    def __init__(self, broker: Broker, lease: float, on_lost: Callable[[Run], None]) -> None:
        self._broker = broker
        self._lease = lease
        self._on_lost = on_lost
        self._held: dict[str, Run] = {}
        self._shortest = lease
        self._sooner = asyncio.Event()

    def __len__(self) -> int:
        return len(self._held)

    @property
    def held(self) -> Iterable[Run]:
        """Everything claimed and not settled."""
        return self._held.values()

    def hold(self, run: Run) -> None:
        """Renew the lease of ``run`` from now on."""
        self._held[run.receipt] = run
        if run.lease < self._shortest:
            self._shortest = run.lease
            self._sooner.set()

    def release(self, receipt: str) -> Run | None:
        """Stop renewing: it is settled, or lost. Returns what was held."""
        return self._held.pop(receipt, None)

    def holds(self, receipt: str) -> bool:
        """Whether the lease is still ours, as far as is known here."""
        return receipt in self._held

    async def run(self) -> None:
        """Renew until cancelled."""
        while True:
            await self._pause(self._shortest / 3 * random.uniform(0.9, 1.1))
            await self.renew_due()

    async def renew_due(self) -> None:
        """Renew every lease that would be less than half full at the next turn."""
        now = time.monotonic()
        self._shortest = min((run.lease for run in self._held.values()), default=self._lease)
        self._shortest = min(self._shortest, self._lease)
        step = self._shortest / 3
        due = [run for run in self._held.values() if run.deadline - now - step < run.lease / 2]
        while due:
            failed = await self._renew(due)
            now = time.monotonic()
            for run in failed:
                if now >= run.deadline - run.lease / 6:
                    self._lose(run)
            due = [run for run in failed if run.receipt in self._held]
            if due:  # the store is in trouble: ask again soon, but not at once
                await asyncio.sleep(min(run.lease for run in due) / 10 * random.uniform(0.5, 1.0))

    async def extend(self, run: Run, lease: float) -> None:
        """Ask for ``lease`` seconds from now; never shortens what is held.

        :raises LeaseLost: the store has given it to another worker, or may have.
        """
        if run.receipt not in self._held:
            raise LeaseLost(
                f"The lease of task {run.envelope.id} was lost; another worker may run it already."
            )
        sent = time.monotonic()
        if sent + lease <= run.deadline:
            return
        (kept,) = await self._broker.extend([run.receipt], lease)
        if not kept:
            self._lose(run)
            raise LeaseLost(
                f"The lease of task {run.envelope.id} was lost; another worker may run it already."
            )
        run.deadline = max(run.deadline, sent + lease)

    async def set_lease(self, runs: list[Run], lease: float) -> None:
        """Give fresh deliveries the lease of their task, longer or shorter than the one they came with."""
        sent = time.monotonic()
        answers = await self._broker.extend([run.receipt for run in runs], lease)
        for run, kept in zip(runs, answers, strict=True):
            if kept:
                run.deadline = sent + lease
            else:
                self._lose(run)

    async def _renew(self, runs: list[Run]) -> list[Run]:
        """Renew, one call per length of lease; the runs for which nothing is known answer back."""
        failed: list[Run] = []
        for lease in {run.lease for run in runs}:
            batch = [run for run in runs if run.lease == lease and run.receipt in self._held]
            sent = time.monotonic()
            if not batch:
                continue
            try:
                async with asyncio.timeout(lease / 3):
                    answers = await self._broker.extend([run.receipt for run in batch], lease)
            except (StemError, TimeoutError, OSError) as error:
                _log.warning("Renewing %d leases failed (%s: %s)", len(batch), type(error).__name__, error)
                failed += batch
                continue
            for run, kept in zip(batch, answers, strict=True):
                if kept:
                    run.deadline = max(run.deadline, sent + lease)
                elif not run.finishing:  # else it may be settled by now, and the store will tell
                    self._lose(run)
        return failed

    def _lose(self, run: Run) -> None:
        if self._held.pop(run.receipt, None) is None:
            return
        _log.warning("The lease of task %s (%s) was lost", run.envelope.id, run.envelope.name)
        run.cut(Stop.LEASE_LOST)
        self._on_lost(run)

    async def _pause(self, seconds: float) -> None:
        self._sooner.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._sooner.wait()
        except TimeoutError:
            return
        # A shorter lease has come: it may not wait for the turn of the longer ones.
        await asyncio.sleep(self._shortest / 3)
