"""Waiting for terminal states: one LISTEN connection and one coalesced fetch for all waiters of an adapter."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Final

from stem_core.errors import StemError
from stem_core.status import TaskStatus
from stem_postgres.arrays import Texts
from stem_postgres.connection import Database
from stem_postgres.doorbell import Doorbell
from stem_postgres.listener import Listener, channel_of
from stem_postgres.statuses import FETCH, status_of

__all__ = ["Waiters"]

#: A terminal state whose announcement was lost (its process died between commit and NOTIFY) is found this late.
_POLL_LISTENING: Final = 5.0
_FIRST_POLL: Final = 0.02
_LONGEST_POLL: Final = 1.0
_LONGEST_REST: Final = 0.005


class Waiters:
    """Who in this process waits for which task, and how they are told."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._events: dict[str, set[asyncio.Event]] = {}
        channel = channel_of(database, "s")
        self._listener = Listener(database, channel, self._heard, self._everyone)
        self._doorbell = Doorbell(database, channel, _LONGEST_REST)
        self._asked: dict[str, list[asyncio.Future[TaskStatus | None]]] = {}
        self._fetching: asyncio.Task[None] | None = None

    def announce(self, ids: Iterable[str]) -> None:
        """These tasks are over: tell who waits, here and in other processes."""
        ended = list(ids)
        self._wake(ended)
        self._doorbell.ring(ended)

    async def wait(self, id: str, timeout: float) -> TaskStatus | None:
        """The terminal status, or None after ``timeout``."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        event = asyncio.Event()
        self._events.setdefault(id, set()).add(event)
        self._listener.start()
        pause = _FIRST_POLL
        try:
            while True:
                event.clear()
                status = await self._fetch(id)
                if status is not None and status.terminal:
                    return status
                left = deadline - loop.time()
                if left <= 0:
                    return None
                nap = _POLL_LISTENING if self._listener.live else pause
                pause = min(pause * 1.5, _LONGEST_POLL)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(nap, left)):
                        await event.wait()
        finally:
            events = self._events[id]
            events.discard(event)
            if not events:
                del self._events[id]

    async def close(self) -> None:
        await self._doorbell.close()
        await self._listener.close()
        if self._fetching is not None:
            self._fetching.cancel()
        for futures in self._asked.values():
            for future in futures:
                if not future.done():
                    future.set_exception(StemError(f"{self._database} is closed; make a new one"))
        self._asked.clear()
        self._everyone()

    async def _fetch(self, id: str) -> TaskStatus | None:
        """One fetch for everybody who asks in the same moment."""
        future: asyncio.Future[TaskStatus | None] = asyncio.get_running_loop().create_future()
        self._asked.setdefault(id, []).append(future)
        if self._fetching is None or self._fetching.done():
            self._fetching = asyncio.create_task(self._fetch_asked(), name="stem-postgres-fetch")
        return await future

    async def _fetch_asked(self) -> None:
        while self._asked:
            asked, self._asked = self._asked, {}
            try:
                rows = await self._database.run(
                    FETCH, {"namespace": self._database.namespace, "ids": Texts(asked)}
                )
                found = {status.id: status for status in map(status_of, rows)}
            except BaseException as error:
                refusal = error if isinstance(error, StemError) else StemError(f"{self._database} was closed")
                for future in (each for futures in asked.values() for each in futures if not each.done()):
                    future.set_exception(refusal)
                if not isinstance(error, StemError):
                    raise
            else:
                for id, futures in asked.items():
                    for future in futures:
                        if not future.done():
                            future.set_result(found.get(id))

    def _heard(self, payload: str) -> None:
        self._wake(payload.split("\n"))

    def _wake(self, ids: Iterable[str]) -> None:
        for id in ids:
            for event in self._events.get(id, ()):
                event.set()

    def _everyone(self) -> None:
        self._wake(list(self._events))
