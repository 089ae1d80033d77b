"""Waiting for tasks to end: the store names them on a few shared channels, heard on one connection."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from stem_core.errors import AdapterError, StemError
from stem_redis.connection import Server
from stem_redis.keys import Keys
from stem_redis.subscription import Subscription

__all__ = ["Completions"]

#: Seconds the connection is kept when nobody waits any more: one who waits again soon finds it ready.
_LINGER: Final = 5.0


class Completions:
    """Who waits for which task. The connection is made for the first, and closed some time after the last."""

    def __init__(self, server: Server, keys: Keys) -> None:
        self._server = server
        self._keys = keys
        self._lock = asyncio.Lock()
        self._subscription: Subscription | None = None
        self._reader: asyncio.Task[None] | None = None
        self._waiters: dict[str, set[asyncio.Future[None]]] = {}
        self._channels: dict[str, asyncio.Future[None]] = {}
        """Those asked for; done when the server has confirmed one."""
        self._lingering: asyncio.TimerHandle | None = None

    async def watch(self, id: str) -> asyncio.Future[None]:
        """Done when ``id`` ends from now on, or when the connection is lost.

        :raises AdapterError: the server cannot be reached.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(id, set()).add(future)
        try:
            async with asyncio.timeout(self._server.timeout):
                await asyncio.shield(await self._listen(self._keys.ended(id)))
        except TimeoutError:
            self.unwatch(id, future)
            raise AdapterError(f"{self._server.masked} did not confirm a subscription in time") from None
        except BaseException:
            self.unwatch(id, future)
            raise
        return future

    def unwatch(self, id: str, future: asyncio.Future[None]) -> None:
        """Stop waiting."""
        future.cancel()
        waiters = self._waiters.get(id)
        if waiters is not None:
            waiters.discard(future)
            if not waiters:
                del self._waiters[id]
        if not self._waiters and self._lingering is None and self._subscription is not None:
            self._lingering = asyncio.get_running_loop().call_later(_LINGER, self._leave)

    async def close(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
        if self._subscription is not None:
            self._lose(self._subscription)
        if self._reader is not None:
            self._reader.cancel()
            with suppress(asyncio.CancelledError, StemError):
                await self._reader

    async def _listen(self, channel: str) -> asyncio.Future[None]:
        """What is done when the server has confirmed ``channel``, or the connection is lost."""
        async with self._lock:
            if self._subscription is None:
                self._subscription = await Subscription.connect(self._server)
                self._reader = asyncio.create_task(self._read(self._subscription))
            confirmed = self._channels.get(channel)
            if confirmed is None:
                confirmed = self._channels[channel] = asyncio.get_running_loop().create_future()
                try:
                    await self._subscription.subscribe(channel)
                except AdapterError:
                    self._lose(self._subscription)
        return confirmed

    async def _read(self, subscription: Subscription) -> None:
        try:
            while True:
                kind, channel, data = await subscription.read()
                if kind == "message":
                    for id in data.decode().split(" "):
                        if id in self._waiters:
                            _wake(self._waiters[id])
                elif kind == "subscribe" and channel in self._channels:
                    _wake([self._channels[channel]])
        except AdapterError:
            self._lose(subscription)
        finally:
            await subscription.close()

    def _leave(self) -> None:
        self._lingering = None
        if not self._waiters and self._subscription is not None and self._reader is not None:
            self._lose(self._subscription)
            self._reader.cancel()

    def _lose(self, subscription: Subscription) -> None:
        """Everyone looks again: the next to wait connects anew."""
        if self._subscription is not subscription:
            return
        self._subscription = None
        channels, self._channels = self._channels, {}
        _wake(channels.values())
        for futures in self._waiters.values():
            _wake(futures)


def _wake(futures: Iterable[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)
