"""Shared limits at the door: rates and places are asked for before a run begins, places given back after.

A task that must wait is released with a delay, its attempt unchanged, so that it holds no slot here meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Final

from stem_core.envelope import Envelope
from stem_core.errors import StemError
from stem_core.ports.backend import Backend
from stem_core.shared.concurrency import ConcurrencySlots, Slot
from stem_core.shared.limits import RateLimits
from stem_core.worker.run import Run

__all__ = ["Admission"]

_log = logging.getLogger("stem.worker")

#: Seconds a run that found no free place is given back for: the first time, and at most; drawn with jitter.
FULL_DELAY: Final = 0.25
LONGEST_FULL_DELAY: Final = 5.0
#: Seconds to hold back what cannot be asked for.
UNKNOWN_DELAY: Final = 2.0


class Admission:
    """Lets runs in. Without a backend that can keep limits, all of them (the producer has said so)."""

    def __init__(self, backend: Backend | None, worker: str, lease: float) -> None:
        capabilities = backend.capabilities if backend is not None else None
        self._rates = (
            RateLimits(backend) if backend is not None and capabilities and capabilities.limiter else None
        )
        self._slots = (
            ConcurrencySlots(backend, worker)
            if backend is not None and capabilities and capabilities.state
            else None
        )
        self._lease = lease
        self._held: dict[str, Slot] = {}
        self._full: dict[str, int] = {}

    async def enter(self, run: Run) -> float | None:
        """None when the run may begin, else the seconds to give its message back for."""
        limits = run.envelope.limits
        if limits is None:
            return None
        delay = await self._take_place(run)
        if delay is not None or self._rates is None:
            return delay
        permission = await self._rates.ask(run.envelope)
        if permission.granted:
            return None
        await self.leave(run)
        return permission.delay

    async def leave(self, run: Run) -> None:
        """Give back the run's place, if it has one. A failure costs no more than the place's lease."""
        slot = self._held.pop(run.receipt, None)
        if slot is not None:
            await self._free(slot)

    async def _free(self, slot: Slot) -> None:
        if self._slots is None:
            return
        try:
            await self._slots.give_back(slot)
        except (StemError, OSError) as error:
            _log.warning("A place of %s stays taken until its lease ends: %s", slot.key, error)

    async def run(self) -> None:
        """Renew the places held, each third of their lease, until cancelled."""
        while True:
            await asyncio.sleep(self._lease / 3)
            for receipt, slot in list(self._held.items()):
                await self._renew(receipt, slot)

    async def _renew(self, receipt: str, slot: Slot) -> None:
        if self._slots is None:
            return
        try:
            kept = await self._slots.keep(slot, self._lease)
        except (StemError, OSError) as error:
            _log.warning("The place %s could not be renewed: %s", slot.key, error)
            return
        if self._held.get(receipt) is not slot:
            # Given back meanwhile, by a version that this renewal may have been faster than.
            if kept is not None:
                await self._free(kept)
            return
        if kept is None:
            del self._held[receipt]
            _log.warning("The place %s was lost; more may run than max_concurrency allows", slot.key)
        else:
            self._held[receipt] = kept

    async def _take_place(self, run: Run) -> float | None:
        limits = run.envelope.limits
        if limits is None or limits.max_concurrency is None or self._slots is None:
            return None
        key = place_of(run.envelope)
        try:
            slot = await self._slots.take(key, limits.max_concurrency, self._lease)
        except (StemError, OSError) as error:
            _log.warning("%s is held back: its place cannot be asked for (%s)", run.envelope.name, error)
            return UNKNOWN_DELAY
        if slot is None:
            times = self._full[key] = self._full.get(key, 0) + 1
            return random.uniform(0.5, 1.0) * min(FULL_DELAY * 2.0 ** min(times, 10), LONGEST_FULL_DELAY)
        self._full.pop(key, None)
        self._held[run.receipt] = slot
        return None


def place_of(envelope: Envelope) -> str:
    """What is limited together: the task, or whatever shares its ``concurrency_key``."""
    limits = envelope.limits
    return envelope.name if limits is None or limits.concurrency_key is None else limits.concurrency_key
