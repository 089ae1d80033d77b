"""A TCP proxy that fails on demand: between an adapter and its server, on the test's own loop."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


class Proxy:
    """``async with Proxy(redis_url) as proxy``: connect to ``proxy.url``; change what it does at any time."""

    def __init__(self, url: str, tls: ssl.SSLContext | None = None) -> None:
        """With ``tls`` it is the server's TLS: it takes rediss:// and goes on in the clear."""
        self._tls = tls
        parts = urlsplit(url)
        assert parts.hostname
        self._target = parts.hostname, parts.port or 6379
        self._path = parts.path
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.swallow = False
        """Half-open: whatever is sent, in either direction, never arrives."""
        self.delay = 0.0
        """Seconds each answer is late."""
        self.cut_replies: Callable[[], bool] = lambda: False
        """Asked when an answer comes: True throws it away and cuts the connection, its request being done."""

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"redis{'s' if self._tls else ''}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}{self._path}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Close every connection now."""
        for writer in list(self._links):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            up_reader, up_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            self._tasks.discard(task)
            return
        self._links |= {writer, up_writer}
        try:
            await asyncio.gather(
                self._pump(reader, up_writer, up=True), self._pump(up_reader, writer, up=False)
            )
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for each in (writer, up_writer):
                each.transport.abort()
                self._links.discard(each)
                with suppress(OSError, asyncio.CancelledError):
                    await each.wait_closed()
            self._tasks.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        while data := await reader.read(65536):
            if self.swallow:
                continue
            if not up:
                if self.cut_replies():
                    raise ConnectionResetError
                if self.delay:
                    await asyncio.sleep(self.delay)
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError
