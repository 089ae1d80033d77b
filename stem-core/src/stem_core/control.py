"""``stem.control``: talking to the workers.

Pauses and revocations are kept in the state, so they hold for workers that start later; a broadcast only
makes the running ones look at once. Who lives is read from heartbeats; ping, inspect and stats are
asked of the workers themselves.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, Protocol

from stem_core.envelope import new_id
from stem_core.errors import DecodeError, UnsupportedCapability
from stem_core.options import check_name
from stem_core.ports.backend import Backend
from stem_core.shared import commands
from stem_core.shared.commands import CHANNEL, Command, Kind, Reply, reply_channel
from stem_core.shared.heartbeats import Heartbeat, Heartbeats
from stem_core.shared.pauses import Pause, Pauses
from stem_core.wiring import Wiring

__all__ = ["Control"]

#: Seconds to wait for replies when it is not known how many there will be.
PATIENCE: Final = 1.0


class Commander(Protocol):
    """The part of a producer that control needs."""

    @property
    def wiring(self) -> Wiring: ...
    async def open(self) -> None: ...


class Control:
    """Commands to workers. Without ``workers`` a command is for all of them."""

    def __init__(self, stem: Commander) -> None:
        self._stem = stem

    async def workers(self) -> list[Heartbeat]:
        """The workers that said within the last half minute that they live."""
        return await Heartbeats(await self._state()).alive()

    async def ping(self, *, workers: Sequence[str] = (), timeout: float = 5.0) -> list[Reply]:
        """One reply of each worker that hears it within ``timeout`` seconds."""
        return await self._ask("ping", workers, {}, timeout)

    async def inspect(self, *, workers: Sequence[str] = (), timeout: float = 5.0) -> list[Reply]:
        """What each worker is running: ``{"queues", "paused", "running": [{"id", "name", "attempt", "seconds"}]}``."""
        return await self._ask("inspect", workers, {}, timeout)

    async def stats(self, *, workers: Sequence[str] = (), timeout: float = 5.0) -> list[Reply]:
        """Each worker's counters since its start."""
        return await self._ask("stats", workers, {}, timeout)

    async def pause(self, queue: str, *, reason: str = "") -> None:
        """Stop handing out ``queue``, until it is resumed; running tasks finish."""
        await Pauses(await self._state()).pause(check_name(queue, "queue"), reason)
        await self._tell("pause", (), {"queue": queue})

    async def resume(self, queue: str) -> bool:
        """Hand out ``queue`` again; whether it was paused."""
        was = await Pauses(await self._state()).resume(queue)
        await self._tell("resume", (), {"queue": queue})
        return was

    async def paused(self) -> dict[str, Pause]:
        """Every paused queue, with the reason."""
        return await Pauses(await self._state()).paused()

    async def shutdown(
        self,
        mode: Literal["warm", "soft", "hard"] = "warm",
        *,
        workers: Sequence[str] = (),
        timeout: float = 5.0,
    ) -> list[Reply]:
        """Stop workers. Warm: drain without limit; soft: drain for ``drain_timeout``; hard: give all back at once."""
        if mode not in ("warm", "soft", "hard"):
            raise ValueError(f"mode={mode!r} is not 'warm', 'soft' or 'hard'")
        return await self._ask("shutdown", workers, {"mode": mode}, timeout)

    async def revoked(self, ids: Sequence[str], *, terminate: bool = False) -> None:
        """Make running workers look at revocations that were just written."""
        await self._tell("revoke", (), {"ids": list(ids), "terminate": terminate})

    async def _state(self) -> Backend:
        await self._stem.open()
        backend = self._stem.wiring.backend
        if backend is None or not backend.capabilities.state:
            raise UnsupportedCapability(
                "Remote control keeps pauses and heartbeats in the backend's state, and this Stem's backend "
                f"({'none' if backend is None else type(backend).__name__}) has none; configure one that declares it"
            )
        return backend

    async def _tell(self, kind: Kind, workers: Sequence[str], arguments: Mapping[str, Any]) -> Command:
        """Broadcast a command, where the broker can; what it asks is in the state all the same."""
        await self._stem.open()
        wiring = self._stem.wiring
        command = Command(
            id=new_id(), kind=kind, sent_at=time.time(), workers=tuple(workers), arguments=arguments
        )
        if wiring.broker.capabilities.broadcast:
            await wiring.broker.broadcast(CHANNEL, self._sealed(command))
        return command

    async def _ask(
        self, kind: Kind, workers: Sequence[str], arguments: Mapping[str, Any], timeout: float
    ) -> list[Reply]:
        await self._stem.open()
        wiring = self._stem.wiring
        if not wiring.broker.capabilities.broadcast:
            raise UnsupportedCapability(
                f"{kind!r} is sent by broadcast, and {type(wiring.broker).__name__} does not declare it; "
                "control.workers() reads the heartbeats"
            )
        expected = set(workers) or {each.id for each in await self._alive()}
        command = Command(
            id=new_id(), kind=kind, sent_at=time.time(), workers=tuple(workers), arguments=arguments
        )
        replies: dict[str, Reply] = {}
        stream = wiring.broker.subscribe([reply_channel(command.id)])
        listening = asyncio.ensure_future(self._listen(stream, replies, expected))
        try:
            # Subscribed from the first __anext__ on: let it start before the command goes out.
            await asyncio.sleep(0)
            deadline = time.monotonic() + (timeout if expected else min(timeout, PATIENCE))
            again = 0.05
            while not listening.done() and (left := deadline - time.monotonic()) > 0:
                await wiring.broker.broadcast(CHANNEL, self._sealed(command))
                await asyncio.wait([listening], timeout=min(left, again))
                again *= 4  # a worker answers a command once, however often it hears it
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
        return sorted(replies.values(), key=lambda each: each.worker)

    async def _listen(self, stream: Any, replies: dict[str, Reply], expected: set[str]) -> None:
        try:
            async for _, data in stream:
                try:
                    reply = commands.open_reply(data)
                except DecodeError:
                    continue
                replies[reply.worker] = reply
                if expected and expected <= replies.keys():
                    return
        finally:
            await stream.aclose()

    async def _alive(self) -> list[Heartbeat]:
        backend = self._stem.wiring.backend
        if backend is None or not backend.capabilities.state:
            return []
        return await Heartbeats(backend).alive()

    def _sealed(self, command: Command) -> bytes:
        wiring = self._stem.wiring
        return commands.seal(command, namespace=wiring.namespace, signer=wiring.signer)
