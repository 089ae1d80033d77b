"""LISTEN on one direct connection, for as long as the adapter is open, whatever happens to that connection.

A notification is a hint and may be lost: whoever waits also polls. After every (re)connection ``connected`` is
called, so that nothing that was announced while nobody listened is waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import random
from collections.abc import Callable

import psycopg
from psycopg import sql

from stem_postgres.connection import Database

__all__ = ["Listener", "channel_of"]

_LOG = logging.getLogger("stem.postgres")
_QUIET_SECONDS = 30.0
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0


def channel_of(database: Database, kind: str) -> str:
    """The channel of one schema and namespace: a name PostgreSQL takes whatever they are."""
    key = f"{database.location.schema}\0{database.namespace}".encode()
    return f"stem_{kind}_{hashlib.blake2b(key, digest_size=12).hexdigest()}"


class Listener:
    """Calls ``heard(payload)`` for each notification on ``channel``; started by the first ``start``."""

    def __init__(
        self, database: Database, channel: str, heard: Callable[[str], None], connected: Callable[[], None]
    ) -> None:
        self._database = database
        self._channel = channel
        self._heard = heard
        self._connected = connected
        self._task: asyncio.Task[None] | None = None
        self._listening = asyncio.Event()

    @property
    def live(self) -> bool:
        """Whether notifications arrive now; when not, poll faster."""
        return self._listening.is_set()

    def start(self) -> None:
        if self._task is None and self._database.location.listen is not None:
            self._task = asyncio.create_task(self._keep_listening(), name="stem-postgres-listen")

    async def ready(self, timeout: float) -> bool:
        """Start, and wait until notifications arrive; False where they do not within ``timeout``."""
        self.start()
        if self._task is None:
            return False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._listening.wait()
        return self.live

    async def close(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _keep_listening(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                await self._listen()
            except (psycopg.Error, OSError, TimeoutError) as error:
                if self.live:
                    pause = _FIRST_PAUSE
                    _LOG.warning(
                        "lost the LISTEN connection, polling until it is back: %s", str(error).strip()
                    )
            finally:
                self._listening.clear()
            await asyncio.sleep(random.uniform(pause / 2, pause))
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _listen(self) -> None:
        conninfo = self._database.location.listen
        assert conninfo is not None
        async with asyncio.timeout(_LONGEST_PAUSE):
            connection = await self._database.connect(conninfo)
        try:
            async with asyncio.timeout(_LONGEST_PAUSE):
                await connection.execute(sql.SQL("listen {}").format(sql.Identifier(self._channel)))
            self._listening.set()
            self._connected()
            while True:
                async for notification in connection.notifies(timeout=_QUIET_SECONDS):
                    self._heard(notification.payload)
                async with asyncio.timeout(_LONGEST_PAUSE):
                    await connection.execute("select 1")  # a half-open connection would be silent for ever
        finally:
            await connection.close()
