"""Waiting for work without asking again and again: an idle worker blocks on its queues' bells.

The claim that a bell calls for is sent along behind the request that blocks, so that it costs no round trip: the server
does it when the bell has rung, or when the time is up. Whoever is cancelled hangs up, and the server does not do it
any more. But it may still get a bell, until the server has noticed. A bell wakes one worker, so that it must not be lost:
it is rung once more, after the hanging up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from stem_core.errors import StemError
from stem_redis.connection import Server
from stem_redis.link import pack

__all__ = ["Doorbell"]

_BELL: Final = ":bell"
#: Seconds an answer may be late before the connection counts as half-open.
_GRACE: Final = 5.0
#: Seconds :meth:`Doorbell.close` waits for bells to be rung once more.
_LAST_WAIT: Final = 1.0


class Doorbell:
    """The bells of one broker's queues."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._ringing: set[asyncio.Task[None]] = set()

    async def wait(self, roots: Sequence[str], seconds: float, script: str, *args: bytes | str | int) -> Any:
        """What ``script`` answers when a bell of ``roots`` has rung, or after ``seconds`` (at most a few)."""
        block = max(seconds, 0.001)
        bell = pack("BLPOP", *(root + _BELL for root in roots), f"{block:.3f}")
        after = pack(*self._server.invocation(script, roots, *args))
        link = await self._server.lend()
        try:
            rang, answer = await link.exchange((bell, after), block + _GRACE)
        except asyncio.CancelledError:
            self._ring_again(roots)
            raise
        finally:
            await self._server.give_back(link)
        self._server.raise_refusal(rang)
        return await self._server.answer_of(answer, script, roots, *args)

    async def close(self) -> None:
        """Let bells be rung once more."""
        if self._ringing:
            await asyncio.wait(self._ringing, timeout=_LAST_WAIT)
        for task in self._ringing:
            task.cancel()

    def _ring_again(self, roots: Sequence[str]) -> None:
        async def ring() -> None:
            with suppress(StemError):  # idle workers look every few seconds in any case
                await self._server.run("ring", roots)

        task = asyncio.create_task(ring())
        self._ringing.add(task)
        task.add_done_callback(self._ringing.discard)
