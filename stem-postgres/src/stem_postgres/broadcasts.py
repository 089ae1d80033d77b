"""Broadcast: the data in a table for two minutes, and NOTIFY (whose payloads are small) to say that there is some.

A subscriber reads what is recent and not yet seen, never "after number n": what commits out of order, or while
its connection is away, is not overlooked. Where LISTEN cannot work it looks every half second.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Final

from stem_postgres.arrays import Texts
from stem_postgres.connection import Database
from stem_postgres.listener import Listener, channel_of

__all__ = ["Broadcasts"]

_WINDOW: Final = 120.0  # seconds a broadcast is kept; a listener is back long before
_POLL: Final = 0.5
_POLL_LISTENING: Final = 30.0

_SEND: Final = """with sent as (
    insert into {s}.broadcast (namespace, channel, data, sent_at)
    values (%(namespace)s, %(channel)s, %(data)s, clock_timestamp()) returning seq
), swept as (
    delete from {s}.broadcast
    where seq = any (array(
        select seq from {s}.broadcast
        where namespace = %(namespace)s and sent_at < statement_timestamp() - make_interval(secs => %(window)s)
        order by sent_at limit 100 for update skip locked))
)
select pg_notify(%(bell)s, seq::text) from sent"""

_RECENT: Final = """select seq, channel, data from {s}.broadcast
where namespace = %(namespace)s and channel = any (%(channels)s)
  and sent_at > statement_timestamp() - make_interval(secs => %(window)s)
order by seq"""


class _Subscriber:
    def __init__(self, channels: Sequence[str]) -> None:
        self.channels = tuple(channels)
        self.seen: set[int] = set()
        self.bell = asyncio.Event()


class Broadcasts:
    """Sends, and feeds the subscribers of this adapter over one LISTEN connection."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._bell = channel_of(database, "b")
        self._listener = Listener(database, self._bell, lambda _: self._ring(), self._ring)
        self._subscribers: set[_Subscriber] = set()

    async def send(self, channel: str, data: bytes) -> None:
        """Store and announce, in one transaction: nobody waits for a broadcast's commit."""
        await self._database.run(
            _SEND,
            {
                "namespace": self._database.namespace,
                "channel": channel,
                "data": data,
                "bell": self._bell,
                "window": _WINDOW,
            },
        )

    async def subscribe(self, channels: Sequence[str]) -> AsyncIterator[tuple[str, bytes]]:
        """What is broadcast from the first ``__anext__`` on."""
        subscriber = _Subscriber(channels)
        self._subscribers.add(subscriber)
        try:
            subscriber.seen.update(seq for seq, _, _ in await self._recent(subscriber))
            self._listener.start()
            while True:
                subscriber.bell.clear()
                rows = await self._recent(subscriber)
                fresh = [row for row in rows if row[0] not in subscriber.seen]
                subscriber.seen = {seq for seq, _, _ in rows}
                for _, channel, data in fresh:
                    yield channel, data
                if not fresh:
                    pause = _POLL_LISTENING if self._listener.live else _POLL
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(pause):
                            await subscriber.bell.wait()
        finally:
            self._subscribers.discard(subscriber)

    async def close(self) -> None:
        await self._listener.close()
        self._ring()

    async def _recent(self, subscriber: _Subscriber) -> list[tuple[int, str, bytes]]:
        rows = await self._database.run(
            _RECENT,
            {
                "namespace": self._database.namespace,
                "channels": Texts(subscriber.channels),
                "window": _WINDOW,
            },
        )
        return [(seq, channel, data) for seq, channel, data in rows]

    def _ring(self) -> None:
        for subscriber in self._subscribers:
            subscriber.bell.set()
