"""Waiting for tasks to end: the store says so on a channel per task, heard on one connection."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress

from stem_core.errors import AdapterError, StemError
from stem_redis.connection import Server
from stem_redis.subscription import Subscription

__all__ = ["Completions"]


class Completions:
    """The channels somebody waits on now. The connection is made for the first and kept."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._lock = asyncio.Lock()
        self._subscription: Subscription | None = None
        self._reader: asyncio.Task[None] | None = None
        self._waiters: dict[str, set[asyncio.Future[None]]] = {}
        self._confirmed: dict[str, asyncio.Future[None]] = {}

    async def watch(self, channel: str) -> asyncio.Future[None]:
        """Done at the first message on ``channel`` from now on, or when the connection is lost.

        :raises AdapterError: the server cannot be reached.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        async with self._lock:
            if self._subscription is None:
                self._subscription = await Subscription.connect(self._server)
                self._reader = asyncio.create_task(self._read(self._subscription))
            subscription = self._subscription
        waiters = self._waiters.setdefault(channel, set())
        waiters.add(future)
        confirmed = self._confirmed.get(channel)
        if confirmed is None:
            confirmed = self._confirmed[channel] = asyncio.get_running_loop().create_future()
            try:
                await subscription.subscribe(channel)
            except AdapterError:
                self._lose(subscription)
        try:
            async with asyncio.timeout(self._server.timeout):
                await asyncio.shield(confirmed)
        except TimeoutError:
            await self.unwatch(channel, future)
            raise AdapterError(f"{self._server.masked} did not confirm a subscription in time") from None
        except BaseException:
            await self.unwatch(channel, future)
            raise
        return future

    async def unwatch(self, channel: str, future: asyncio.Future[None]) -> None:
        """Stop waiting. The last one to leave a channel ends its subscription."""
        future.cancel()
        waiters = self._waiters.get(channel)
        if waiters is None:
            return
        waiters.discard(future)
        if not waiters:
            self._waiters.pop(channel, None)
            self._confirmed.pop(channel, None)
            if self._subscription is not None:
                with suppress(AdapterError):  # the reader sees it too
                    await self._subscription.unsubscribe(channel)

    async def close(self) -> None:
        reader, subscription = self._reader, self._subscription
        if subscription is not None:
            self._lose(subscription)
            await subscription.close()
        if reader is not None:
            reader.cancel()
            with suppress(asyncio.CancelledError, StemError):
                await reader

    async def _read(self, subscription: Subscription) -> None:
        try:
            while True:
                kind, channel, _ = await subscription.read()
                if kind == "message":
                    _wake(self._waiters.get(channel, ()))
                elif kind == "subscribe":
                    confirmed = self._confirmed.get(channel)
                    if confirmed is not None and not confirmed.done():
                        confirmed.set_result(None)
        except AdapterError:
            self._lose(subscription)
            await subscription.close()

    def _lose(self, subscription: Subscription) -> None:
        """Everyone looks again: the next to wait connects anew."""
        if self._subscription is not subscription:
            return
        self._subscription = None
        waiters, self._waiters = self._waiters, {}
        confirmed, self._confirmed = self._confirmed, {}
        for futures in waiters.values():
            _wake(futures)
        _wake(confirmed.values())


def _wake(futures: Iterable[asyncio.Future[None]]) -> None:
    for future in list(futures):
        if not future.done():
            future.set_result(None)
