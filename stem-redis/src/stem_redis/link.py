"""One connection: made by redis-py, written and read by us.

redis-py connects, speaks TLS and logs in. Then the transport is ours, and what arrives is cut into answers by hiredis
as it comes: a request costs one write, and its caller one wake-up when the last answer is there.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

import hiredis
from redis import exceptions as driver
from redis.asyncio.connection import AbstractConnection

from stem_core.errors import AdapterError
from stem_redis.errors import Unreached, refusal

__all__ = ["Answered", "Command", "Link", "pack"]

#: One command: its name and arguments.
Command = tuple[bytes | str | int, ...]
#: Told the answers to an exchange, or why there are none.
Answered = Callable[[list[Any] | AdapterError], None]

#: What the parser says when an answer is not complete.
_INCOMPLETE: Final = object()
#: Bytes that may wait to be written before the transport writes them at once, not at the end of the loop's turn.
_WRITE_AT: Final = 8192
#: Bytes of exchanges begun that may wait for the server to take them.
_MOST_WAITING: Final = 1024 * 1024


def pack(*command: bytes | str | int) -> bytes:
    """One command in RESP."""
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub knows tuples of one only
    return packed


class _Exchange:
    """Requests on their way, and the answers so far."""

    __slots__ = ("answered", "answers", "deadline", "timeout", "wanted")

    def __init__(self, wanted: int, timeout: float, deadline: float, answered: Answered) -> None:
        self.wanted = wanted
        self.timeout = timeout
        self.deadline = deadline
        self.answered = answered
        self.answers: list[Any] = []


class Link(asyncio.Protocol):
    """One connection. Exchanges are answered in the order they were begun in; one that fails or is given up closes the
    connection, and every other that is under way fails with it: answers could no longer be told apart.
    """

    def __init__(self, connection: AbstractConnection, url: str) -> None:
        self._connection = connection
        self._url = url
        self._loop = asyncio.get_running_loop()
        self._parser = hiredis.Reader(replyError=driver.ResponseError, notEnoughData=_INCOMPLETE)
        self._transport: asyncio.WriteTransport | None = None
        self._exchanges: deque[_Exchange] = deque()
        self._heard: deque[Any] = deque()
        """What the server said that nobody asked for; read by :meth:`read`."""
        self._waiter: asyncio.Future[None] | None = None
        """Of who waits to hear something, or for room to write."""
        self._full = False
        self._lost: Exception | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0.0

    @property
    def alive(self) -> bool:
        """Whether the other side has not hung up, as far as one can tell without asking."""
        return self._transport is not None and self._lost is None and not self._transport.is_closing()

    @property
    def full(self) -> bool:
        """Whether the server is so far behind that no more should be begun."""
        return self._transport is not None and self._transport.get_write_buffer_size() > _MOST_WAITING

    async def connect(self, timeout: float) -> None:
        """Connect and log in.

        :raises Unreached: not within ``timeout`` seconds, or refused.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._connection.connect()  # type: ignore[no-untyped-call]
        except TimeoutError:
            await self.close()
            raise Unreached(f"{self._url} did not answer within {timeout:g} s") from None
        except driver.AuthenticationError as error:
            await self.close()
            raise Unreached(f"{self._url} refused the login: {error}") from error
        except driver.ResponseError as error:
            await self.close()
            raise Unreached(str(refusal(error, self._url))) from error
        except (driver.RedisError, OSError) as error:
            await self.close()
            raise Unreached(f"cannot connect to {self._url}: {error}") from error
        writer = self._connection._writer  # noqa: SLF001 - redis-py has no public way to its transport
        assert writer is not None
        self._transport = writer.transport
        writer.transport.set_protocol(self)
        writer.transport.set_write_buffer_limits(high=_WRITE_AT)

    def begin(self, requests: Sequence[bytes], timeout: float, answered: Answered) -> None:
        """Send requests at once, behind those under way; ``answered`` is called when all answers are there.

        :raises AdapterError: the connection is broken; nothing was sent.
        """
        self.write(b"".join(requests))
        self._expect(len(requests), timeout, answered)

    async def exchange(self, requests: Iterable[bytes], timeout: float) -> list[Any]:
        """Send each request as it comes and read the answers; an error the server answered is one of them.

        For one at a time: no other exchange may be begun meanwhile.

        :raises AdapterError: the connection broke, or ``timeout`` seconds passed; what was sent may be done.
        """
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        try:
            exchange = self._expect(sys.maxsize, timeout, partial(_resolve, future))
            sent = 0
            for data in requests:  # the server works on the first while the next is made
                self.write(data)
                sent += 1
                if self._full:
                    await self._wait()
                    if future.done():  # it broke
                        break
            exchange.wanted = sent
            self._complete()
            return await future
        except BaseException:
            future.cancel()
            await self.close()
            raise

    async def read(self) -> Any:
        """The next thing the server says, however long that takes (subscriptions).

        :raises AdapterError: the connection broke.
        """
        if not self._heard:
            if self._lost is None:
                await self._wait()
            if not self._heard:
                raise self._broken()
        return self._heard.popleft()

    def write(self, data: bytes) -> None:
        """Send without waiting for an answer.

        :raises AdapterError: the connection is broken.
        """
        if self._transport is None or self._lost is not None:
            raise self._broken()
        self._transport.write(data)

    async def close(self) -> None:
        """Hang up, whatever is under way."""
        self._break(ConnectionResetError("it was closed"))
        with suppress(driver.RedisError, OSError):
            await self._connection.disconnect(nowait=True)

    # waiting

    async def _wait(self) -> None:
        """Until there is something to hear, room to write, or nothing to hope for."""
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _expect(self, wanted: int, timeout: float, answered: Answered) -> _Exchange:
        """Count on so many answers. One timer serves all; when it rings too early, it is set again."""
        deadline = self._loop.time() + timeout
        exchange = _Exchange(wanted, timeout, deadline, answered)
        self._exchanges.append(exchange)
        if self._alarm is None or self._alarm_at > deadline:
            if self._alarm is not None:
                self._alarm.cancel()
            self._set_alarm(deadline)
        return exchange

    def _set_alarm(self, at: float) -> None:
        self._alarm_at = at
        self._alarm = self._loop.call_at(at, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        if not self._exchanges:
            return
        first = min(self._exchanges, key=lambda each: each.deadline)
        if first.deadline > self._loop.time():
            self._set_alarm(first.deadline)
        else:
            self._break(TimeoutError(f"it did not answer within {first.timeout:g} s"))

    def _complete(self) -> None:
        """Hand over what is answered."""
        exchanges = self._exchanges
        while exchanges and len(exchanges[0].answers) >= exchanges[0].wanted:
            exchange = exchanges.popleft()
            exchange.answered(exchange.answers)

    def _broken(self) -> AdapterError:
        if isinstance(self._lost, TimeoutError):
            return AdapterError(f"{self._url}: {self._lost}")
        return AdapterError(f"lost the connection to {self._url}: {self._lost or 'it was closed'}")

    # what the transport calls

    def data_received(self, data: bytes) -> None:
        exchanges = self._exchanges
        try:
            self._parser.feed(data)
            while (answer := self._parser.gets()) is not _INCOMPLETE:
                if exchanges:
                    first = exchanges[0]
                    first.answers.append(answer)
                    if len(first.answers) == first.wanted:
                        self._complete()
                else:
                    self._heard.append(answer)
                    self._wake()
        except hiredis.HiredisError as error:
            self._break(error)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._wake()

    def eof_received(self) -> None:
        self._break(ConnectionResetError("the server hung up"))

    def connection_lost(self, error: Exception | None) -> None:
        self._break(error or ConnectionResetError("it was closed"))

    def _break(self, error: Exception) -> None:
        """Hang up, and tell everyone who waits."""
        if self._lost is None:
            self._lost = error
        if self._transport is not None:
            self._transport.abort()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        while self._exchanges:
            self._exchanges.popleft().answered(self._broken())
        self._wake()


def _resolve(future: asyncio.Future[list[Any]], answers: list[Any] | AdapterError) -> None:
    if future.done():  # given up
        return
    if isinstance(answers, AdapterError):
        future.set_exception(answers)
    else:
        future.set_result(answers)
