"""At most N runs at a time across all workers, leased so that a crash frees its place.

State keys ``slot:<key>:<n>``, with the key or its hash (see :mod:`~stem_core.shared.keys`), n from 0 to N-1: who holds the place (worker and receipt), with the lease
as its time to live. A place is taken by writing it where it is absent, and kept by rewriting it.
"""

from __future__ import annotations

import random
from typing import Final

import msgspec

from stem_core.ports.backend import Backend
from stem_core.shared.keys import key_part

__all__ = ["ConcurrencySlots", "Slot"]

#: How often a place that another worker took first is looked for again before giving up for now.
TRIES: Final = 3


class Slot(msgspec.Struct, frozen=True):
    """A place held: its state key, and the version that proves it is still ours."""

    key: str
    version: int


class ConcurrencySlots:
    """Places of one kind of work; made per worker."""

    def __init__(self, backend: Backend, owner: str) -> None:
        self._backend = backend
        self._owner = owner.encode()

    async def take(self, key: str, most: int, lease: float) -> Slot | None:
        """A free place of ``key`` for ``lease`` seconds, None when all ``most`` are taken.

        :raises StemError: the backend cannot be asked.
        """
        prefix = f"slot:{key_part(key)}:"
        for _ in range(TRIES):
            taken = {entry.key for entry in await self._backend.state_scan(prefix)}
            free = [name for n in range(most) if (name := f"{prefix}{n}") not in taken]
            if not free:
                return None
            chosen = random.choice(free)  # not the first: all who look now would collide on it
            version = await self._backend.state_write(chosen, self._owner, expect=0, ttl=lease)
            if version is not None:
                return Slot(chosen, version)
        return None

    async def keep(self, slot: Slot, lease: float) -> Slot | None:
        """The place for ``lease`` seconds from now, None when it was lost."""
        version = await self._backend.state_write(slot.key, self._owner, expect=slot.version, ttl=lease)
        return None if version is None else Slot(slot.key, version)

    async def give_back(self, slot: Slot) -> None:
        """Free the place; nothing happens when it was lost."""
        await self._backend.state_delete(slot.key, expect=slot.version)
