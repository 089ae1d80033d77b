"""One connection that is written to without waiting: statements in the order they are begun, each a transaction.

It is kept in libpq's pipeline mode and read as its answers come, so the server works on a statement while the next is
made, and a statement costs its process half of what it costs through a cursor. For those that answer with a number of
rows only. There is none until somebody needs it twice within a second, and none again after a minute without use.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import psycopg
from psycopg.abc import Transformer as Encoding
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus, Format

__all__ = ["Answered", "Link"]

#: Told how many rows a statement answered with, or what it failed with.
Answered = Callable[[int | psycopg.Error], None]
Connection = psycopg.AsyncConnection[Any]

#: Statements on their way: enough that the server never waits for the next.
_MOST_UNDER_WAY: Final = 4
#: Kinds of statements and their parameters' types that are prepared.
_MOST_PREPARED: Final = 100
_OFTEN_SECONDS: Final = 1.0
_IDLE_SECONDS: Final = 60.0


class _Exchange:
    """A statement on its way, and what came of it so far."""

    __slots__ = ("alarm", "answered", "outcome")

    def __init__(self, answered: Answered, alarm: asyncio.TimerHandle) -> None:
        self.answered = answered
        self.alarm = alarm
        self.outcome: int | psycopg.Error = 0


class Link:
    """The connection, made by ``connect`` when it is needed. Used from one event loop."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]]) -> None:
        self._connect = connect
        self._connection: Connection | None = None
        self._socket = -1  # libpq forgets it before we are told that it is closed
        self._transformer: Encoding | None = None
        self._prepared: dict[tuple[bytes, tuple[int, ...]], bytes] = {}
        self._exchanges: deque[_Exchange] = deque()
        self._connecting: asyncio.Task[None] | None = None
        self._asked_at = float("-inf")
        self._idle: asyncio.TimerHandle | None = None
        self._retired = False
        """Whether nothing more is begun, because a statement failed: what the server knows of ours may be wrong."""

    def ready(self) -> bool:
        """Whether a statement can be begun now; if none can for want of a connection, there may be one soon."""
        loop = asyncio.get_running_loop()
        before, self._asked_at = self._asked_at, loop.time()
        if self._connection is None:
            if self._asked_at - before < _OFTEN_SECONDS and self._connecting is None:
                self._connecting = loop.create_task(self._open(), name="stem-postgres-link")
            return False
        if not self._exchanges:
            self._look()
        return self._takes_more()

    def begin(self, text: bytes, values: Sequence[Any], timeout: float, answered: Answered) -> bool:
        """Send a statement and its values. False: there is no connection, or this cannot be sent, and nothing was.

        :param timeout: seconds after which it fails, and with it the connection.
        """
        connection, transformer = self._connection, self._transformer
        if connection is None or transformer is None or self._retired:
            return False
        try:
            parameters = transformer.dump_sequence(values, [PyFormat.AUTO] * len(values))
        except (psycopg.Error, ValueError, OverflowError):
            return False
        types = transformer.types or ()
        name = self._prepared.get((text, types))
        if name is None and len(self._prepared) >= _MOST_PREPARED:
            return False
        alarm = asyncio.get_running_loop().call_later(timeout, self._expire, timeout)
        self._exchanges.append(_Exchange(answered, alarm))
        try:
            if name is None:
                name = self._prepared[text, types] = b"stem_%d" % len(self._prepared)
                connection.pgconn.send_prepare(name, text, types)
            connection.pgconn.send_query_prepared(name, parameters, transformer.formats, Format.BINARY)
            connection.pgconn.pipeline_sync()
            self._flush()
        except psycopg.OperationalError as error:  # told as if the server had: nobody knows how far it came
            asyncio.get_running_loop().call_soon(self._break, error)
        return True

    def _look(self) -> None:
        """Notice that it died while idle, before anything is sent to nobody: its socket has something to say."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        while self._connection is not None and poll.poll(0):
            self._readable()

    def _takes_more(self) -> bool:
        return self._connection is not None and not self._retired and len(self._exchanges) < _MOST_UNDER_WAY

    async def close(self) -> None:
        """Hang up. What is under way fails."""
        if self._connecting is not None:
            self._connecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._connecting
        self._break(psycopg.OperationalError("it was closed"))

    async def _open(self) -> None:
        try:
            connection = await self._connect()
        except (psycopg.Error, OSError, TimeoutError):
            return  # whoever asks again tries again; the pool says why
        finally:
            self._connecting = None
        connection.pgconn.enter_pipeline_mode()
        self._connection, self._transformer = connection, Transformer(connection)
        self._retired = False
        self._socket = connection.pgconn.socket
        loop = asyncio.get_running_loop()
        loop.add_reader(self._socket, self._readable)
        self._idle = loop.call_later(_IDLE_SECONDS, self._end_if_idle)

    def _flush(self) -> None:
        if self._connection is not None and self._connection.pgconn.flush():
            asyncio.get_running_loop().add_writer(self._socket, self._go_on_writing)

    def _go_on_writing(self) -> None:
        assert self._connection is not None
        try:
            if not self._connection.pgconn.flush():
                asyncio.get_running_loop().remove_writer(self._socket)
        except psycopg.OperationalError as error:
            self._break(error)

    def _readable(self) -> None:
        """Take what has come, and tell who waits for it."""
        connection = self._connection
        assert connection is not None
        pgconn = connection.pgconn
        try:
            pgconn.consume_input()
            while self._exchanges and not pgconn.is_busy():
                result = pgconn.get_result()
                if result is None or result.status == ExecStatus.PIPELINE_ABORTED:
                    continue
                exchange = self._exchanges[0]
                if result.status == ExecStatus.PIPELINE_SYNC:
                    self._exchanges.popleft()
                    exchange.alarm.cancel()
                    exchange.answered(exchange.outcome)
                elif result.status == ExecStatus.FATAL_ERROR:
                    exchange.outcome = error_from_result(result)
                    self._retired = True
                else:
                    exchange.outcome = result.ntuples
        except psycopg.OperationalError as error:
            self._break(error)
        if self._retired and not self._exchanges:
            self._break(psycopg.OperationalError("a statement failed"))

    def _expire(self, timeout: float) -> None:
        self._break(psycopg.OperationalError(f"it did not answer within {timeout:g} s"))

    def _end_if_idle(self) -> None:
        loop = asyncio.get_running_loop()
        if self._exchanges or loop.time() - self._asked_at < _IDLE_SECONDS:
            self._idle = loop.call_later(_IDLE_SECONDS, self._end_if_idle)
        else:
            self._break(psycopg.OperationalError("it was closed"))

    def _break(self, error: psycopg.OperationalError) -> None:
        """Hang up, and tell everyone who waits."""
        connection, self._connection, self._transformer = self._connection, None, None
        self._prepared.clear()
        if self._idle is not None:
            self._idle.cancel()
        if connection is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._socket)
            loop.remove_writer(self._socket)
            connection.pgconn.finish()
        while self._exchanges:
            exchange = self._exchanges.popleft()
            exchange.alarm.cancel()
            exchange.answered(exchange.outcome if isinstance(exchange.outcome, psycopg.Error) else error)
