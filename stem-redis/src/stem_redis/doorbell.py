"""Waiting for work without asking again and again: an idle worker blocks on its queues' bells.

A bell wakes one worker, and a worker that leaves messages behind rings it again. So a bell must not get lost with a
worker that was cancelled while it waited: its request stays under way, and a bell it still gets is passed on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from stem_core.errors import StemError
from stem_redis.connection import Server
from stem_redis.link import Link, pack

__all__ = ["Doorbell"]

_BELL: Final = ":bell"
#: Seconds an answer may be late before the connection counts as half-open.
_GRACE: Final = 5.0


class Doorbell:
    """The bells of one broker's queues."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._left_behind: set[asyncio.Task[list[Any]]] = set()
        self._ringing: set[asyncio.Task[None]] = set()

    async def wait(self, roots: Sequence[str], seconds: float) -> bool:
        """Whether a bell of ``roots`` rang within ``seconds`` (at most a few)."""
        link = await self._server.lend()
        block = max(seconds, 0.001)
        request = pack("BLPOP", *(root + _BELL for root in roots), f"{block:.3f}")
        waiting = asyncio.create_task(link.exchange([request], block + _GRACE))
        try:
            answers = await asyncio.shield(waiting)
        except asyncio.CancelledError:
            self._leave_behind(waiting, link)
            raise
        except BaseException:
            await self._server.give_back(link)
            raise
        await self._server.give_back(link, reuse=not isinstance(answers[0], Exception))
        self._server.raise_refusal(answers[0])
        return answers[0] is not None

    async def close(self) -> None:
        """Stop what cancelled waits left behind."""
        tasks = [*self._left_behind, *self._ringing]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError, StemError):
                await task

    def _leave_behind(self, waiting: asyncio.Task[list[Any]], link: Link) -> None:
        self._left_behind.add(waiting)

        def done(task: asyncio.Task[list[Any]]) -> None:
            self._left_behind.discard(task)
            failed = task.cancelled() or task.exception() is not None
            answer = None if failed else task.result()[0]
            after = asyncio.create_task(self._pass_on(link, answer))
            self._ringing.add(after)
            after.add_done_callback(self._ringing.discard)

        waiting.add_done_callback(done)

    async def _pass_on(self, link: Link, answer: Any) -> None:
        await self._server.give_back(link, reuse=answer is None or isinstance(answer, list))
        if isinstance(answer, list):
            with suppress(StemError):  # idle workers look every few seconds in any case
                await self._server.run("ring", [answer[0].decode().removesuffix(_BELL)])
