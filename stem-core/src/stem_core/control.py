"""``stem.control``: talking to the workers.

Pauses and revocations are kept in the state, so they hold for workers that start later; a broadcast only
makes the running ones look at once. Who lives is read from heartbeats; ping, inspect and stats are
asked of the workers themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import Final, Literal

from stem_core.clock import seconds
from stem_core.errors import DecodeError, UnsupportedCapability
from stem_core.handles import Runs
from stem_core.options import Duration, check_name
from stem_core.ports.backend import Backend
from stem_core.shared import commands
from stem_core.shared.commands import CHANNEL, Command, Reply, reply_channel
from stem_core.shared.heartbeats import Heartbeat, Heartbeats
from stem_core.shared.pauses import Pause, Pauses
from stem_core.shared.telling import command, sealed, tell
from stem_core.wiring import Wiring

__all__ = ["Control"]

#: Seconds to wait for replies when it is not known how many there will be.
PATIENCE: Final = 1.0
#: Seconds until a command is said again; three times longer each time.
FIRST_AGAIN: Final = 0.1


class Control:
    """Commands to workers. Without ``workers`` a command is for all of them."""

    def __init__(self, stem: Runs) -> None:
        self._stem = stem

    async def workers(self) -> list[Heartbeat]:
        """The workers that said within the last half minute that they live."""
        return await self._stem.run(lambda wiring: Heartbeats(_state(wiring)).alive())

    async def ping(self, *, workers: Sequence[str] = (), timeout: Duration = 5.0) -> list[Reply]:
        """One reply of each worker that hears it within ``timeout`` seconds."""
        return await self._stem.run(lambda wiring: _ask(wiring, command("ping", workers), timeout))

    async def inspect(self, *, workers: Sequence[str] = (), timeout: Duration = 5.0) -> list[Reply]:
        """What each worker is running: ``{"queues", "running": [{"id", "name", "queue", "attempt", "seconds"}]}``."""
        return await self._stem.run(lambda wiring: _ask(wiring, command("inspect", workers), timeout))

    async def stats(self, *, workers: Sequence[str] = (), timeout: Duration = 5.0) -> list[Reply]:
        """Each worker's counters since its start."""
        return await self._stem.run(lambda wiring: _ask(wiring, command("stats", workers), timeout))

    async def pause(self, queue: str, *, reason: str = "") -> None:
        """Stop handing out ``queue``, until it is resumed; running tasks finish."""
        check_name(queue, "queue")

        async def work(wiring: Wiring) -> None:
            await Pauses(_state(wiring)).pause(queue, reason)
            await tell(wiring, command("pause", queue=queue))

        await self._stem.run(work)

    async def resume(self, queue: str) -> bool:
        """Hand out ``queue`` again; whether it was paused."""

        async def work(wiring: Wiring) -> bool:
            was = await Pauses(_state(wiring)).resume(queue)
            await tell(wiring, command("resume", queue=queue))
            return was

        return await self._stem.run(work)

    async def paused(self) -> dict[str, Pause]:
        """Every paused queue, with the reason."""
        return await self._stem.run(lambda wiring: Pauses(_state(wiring)).paused())

    async def shutdown(
        self,
        mode: Literal["warm", "soft", "hard"] = "warm",
        *,
        workers: Sequence[str] = (),
        timeout: Duration = 5.0,
    ) -> list[Reply]:
        """Stop workers. Warm: drain without limit; soft: drain for ``drain_timeout``; hard: give all back at once."""
        if mode not in ("warm", "soft", "hard"):
            raise ValueError(f"mode={mode!r} is not 'warm', 'soft' or 'hard'")
        asked = command("shutdown", workers, mode=mode)
        return await self._stem.run(lambda wiring: _ask(wiring, asked, timeout))


def _state(wiring: Wiring) -> Backend:
    backend = wiring.backend
    if backend is None or not backend.capabilities.state:
        raise UnsupportedCapability(
            "Remote control keeps pauses and heartbeats in the backend's state, and this Stem's backend "
            f"({'none' if backend is None else type(backend).__name__}) has none; configure one that declares it"
        )
    return backend


async def _ask(wiring: Wiring, asked: Command, timeout: Duration) -> list[Reply]:
    broker, backend = wiring.broker, wiring.backend
    if not broker.capabilities.broadcast:
        raise UnsupportedCapability(
            f"{asked.kind!r} is sent by broadcast, and {type(broker).__name__} does not declare it; "
            "control.workers() reads the heartbeats"
        )
    expected = set(asked.workers)
    if not expected and backend is not None and backend.capabilities.state:
        expected = {each.id for each in await Heartbeats(backend).alive()}
    replies: dict[str, Reply] = {}
    stream = broker.subscribe([reply_channel(asked.id)])
    listening = asyncio.ensure_future(_listen(stream, replies, expected))
    data = sealed(wiring, asked)
    patience = seconds(timeout)
    deadline = time.monotonic() + (patience if expected else min(patience, PATIENCE))
    again = FIRST_AGAIN
    try:
        while not listening.done() and (left := deadline - time.monotonic()) > 0:
            # Said again now and then: our own subscription may have begun after the first reply. A worker
            # obeys a command once, and answers it as often as it hears it.
            await broker.broadcast(CHANNEL, data)
            await asyncio.wait([listening], timeout=min(left, again))
            again *= 3
    finally:
        listening.cancel()
        (ended,) = await asyncio.gather(listening, return_exceptions=True)
    if isinstance(ended, Exception):  # not that nobody answered: nobody listened
        raise ended
    return sorted(replies.values(), key=lambda each: each.worker)


async def _listen(
    stream: AsyncIterator[tuple[str, bytes]], replies: dict[str, Reply], expected: set[str]
) -> None:
    async with contextlib.aclosing(stream):  # type: ignore[type-var]
        async for _, data in stream:
            try:
                reply = commands.open_reply(data)
            except DecodeError:
                continue
            replies[reply.worker] = reply
            if expected and expected <= replies.keys():
                return
