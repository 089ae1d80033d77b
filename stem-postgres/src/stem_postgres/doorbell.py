"""NOTIFY, seldom and never in the transaction that it announces.

A transaction with a pending NOTIFY commits under one lock of the whole server; thirty-two clients that did so in
every enqueue ran at a sixth of their speed. So the ring is a statement of its own afterwards, and after each the
process rests five times as long as it took, then rings for all that gathered meanwhile: a lone publisher is heard at
once, and the more ring at a time, the longer each takes and the rarer they become.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable
from typing import Final

from stem_core.errors import StemError
from stem_postgres.connection import Database, Query

__all__ = ["Doorbell"]

_NOTIFY: Final = "select pg_notify(%(channel)s, %(payload)s)"
#: Times as long as the last ring took.
_REST: Final = 5.0
#: Seconds that a ring may take.
_LONGEST: Final = 10.0
#: NOTIFY takes less than 8000 bytes.
_MOST_BYTES: Final = 7900


class Doorbell:
    """Announces names (queues or task ids) on a channel, several to a payload, one a line."""

    def __init__(self, database: Database, channel: str, longest_rest: float) -> None:
        self._database = database
        self._channel = channel
        self._longest_rest = longest_rest
        self._pending: dict[str, None] = {}
        self._task: asyncio.Task[None] | None = None
        self._later: set[asyncio.TimerHandle] = set()

    def ring(self, names: Iterable[str]) -> None:
        """Announce ``names`` soon; returns at once, and a failure is nothing but a missing hint."""
        self._pending.update(dict.fromkeys(names))
        if self._pending and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._send(), name="stem-postgres-notify")

    def ring_after(self, delays: Iterable[float], names: Iterable[str]) -> None:
        """Announce after each of ``delays`` seconds what somebody else is going to commit."""
        kept = tuple(names)
        loop = asyncio.get_running_loop()
        for delay in delays:
            self._later = {each for each in self._later if not each.cancelled() and each.when() > loop.time()}
            self._later.add(loop.call_later(delay, self.ring, kept))

    async def close(self) -> None:
        """Send what is pending and stop."""
        for timer in self._later:
            timer.cancel()
        self._later.clear()
        if self._task is not None and not self._task.done():
            with contextlib.suppress(asyncio.CancelledError):
                if not self._pending:
                    self._task.cancel()
                await self._task

    async def _send(self) -> None:
        with contextlib.suppress(StemError):
            while self._pending:
                names, self._pending = list(self._pending), {}
                began = time.monotonic()
                for payload in _packed(names):
                    await self._notify(Query(_NOTIFY, {"channel": self._channel, "payload": payload}))
                await asyncio.sleep(min(_REST * (time.monotonic() - began), self._longest_rest))

    async def _notify(self, query: Query) -> None:
        sent = asyncio.Event()
        if self._database.begin(query, _LONGEST, lambda _: sent.set()):
            await sent.wait()
        else:
            await self._database.run(*query)


def _packed(names: list[str]) -> list[str]:
    rest = "\n".join(names).encode()
    payloads: list[str] = []
    while len(rest) > _MOST_BYTES:  # no name is nearly as long
        end = rest.rindex(b"\n", 0, _MOST_BYTES)
        payloads.append(rest[:end].decode())
        rest = rest[end + 1 :]
    return [*payloads, rest.decode()]
