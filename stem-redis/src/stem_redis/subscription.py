"""A connection that listens to channels, and notices when nobody is at the other end any more."""

from __future__ import annotations

import asyncio
from typing import Final

from stem_core.errors import AdapterError
from stem_redis.connection import Server
from stem_redis.link import Link, pack

__all__ = ["Subscription"]

#: Seconds of silence after which the server is asked whether it is there.
_SILENCE: Final = 15.0


class Subscription:
    """One listening connection. One task reads; any may subscribe."""

    def __init__(self, server: Server, link: Link) -> None:
        self._server = server
        self._link = link

    @classmethod
    async def connect(cls, server: Server) -> Subscription:
        return cls(server, await server.lend())

    async def subscribe(self, *channels: str) -> None:
        """Ask for ``channels``; :meth:`read` answers ("subscribe", channel) when each holds."""
        self._link.write(pack("SUBSCRIBE", *channels))

    async def unsubscribe(self, *channels: str) -> None:
        self._link.write(pack("UNSUBSCRIBE", *channels))

    async def read(self) -> tuple[str, str, bytes]:
        """(kind, channel, data): a "message", or the answer to "subscribe" or "unsubscribe".

        :raises AdapterError: the connection is gone, or the server has not answered for too long.
        """
        asked = False
        while True:
            try:
                async with asyncio.timeout(self._server.timeout if asked else _SILENCE):
                    answer = await self._link.read()
            except TimeoutError:
                if asked:
                    await self._link.close()
                    raise AdapterError(
                        f"{self._server.masked} did not answer within {self._server.timeout:g} s"
                    ) from None
                asked = True
                self._link.write(pack("PING"))
                continue
            asked = False
            if len(answer) == 3:  # else the answer to PING
                kind, channel, data = answer
                return kind.decode(), channel.decode(), data if isinstance(data, bytes) else b""

    async def close(self) -> None:
        await self._link.close()
        await self._server.give_back(self._link)
