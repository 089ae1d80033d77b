"""One connection: made by redis-py, written and read by us.

redis-py connects, speaks TLS and logs in. Then the transport is ours, and what arrives is cut into answers by hiredis
as it comes: a request costs one write, and its caller one wake-up when the last answer is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

import hiredis
from redis import exceptions as driver
from redis.asyncio.connection import AbstractConnection

from stem_core.errors import AdapterError
from stem_redis.errors import Unreached, refusal

__all__ = ["Command", "Link", "pack"]

#: One command: its name and arguments.
Command = tuple[bytes | str | int, ...]

#: What the parser says when an answer is not complete.
_INCOMPLETE: Final = object()


def pack(*command: bytes | str | int) -> bytes:
    """One command in RESP."""
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub knows tuples of one only
    return packed


class Link(asyncio.Protocol):
    """One connection, used by one at a time. A failed or cancelled exchange closes it: answers could no longer be
    told apart.
    """

    def __init__(self, connection: AbstractConnection, url: str) -> None:
        self._connection = connection
        self._url = url
        self._loop = asyncio.get_running_loop()
        self._parser = hiredis.Reader(replyError=driver.ResponseError, notEnoughData=_INCOMPLETE)
        self._transport: asyncio.WriteTransport | None = None
        self._answers: list[Any] = []
        self._wanted = 0
        self._waiter: asyncio.Future[None] | None = None
        """Done when ``_wanted`` answers are there; with 0 wanted, when there is room to write again."""
        self._full = False
        self._lost: Exception | None = None
        self._deadline = 0.0
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0.0

    @property
    def alive(self) -> bool:
        """Whether the other side has not hung up, as far as one can tell without asking."""
        return self._transport is not None and self._lost is None and not self._transport.is_closing()

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

    async def exchange(self, requests: Iterable[bytes], timeout: float) -> list[Any]:
        """Send each request as it comes and read the answers; an error the server answered is one of them.

        :raises AdapterError: the connection broke, or ``timeout`` seconds passed; what was sent may be done.
        """
        try:
            self._watch(timeout)
            sent = 0
            for data in requests:  # the server works on the first while the next is made
                self.write(data)
                sent += 1
                if self._full:
                    await self._wait(0)
            if len(self._answers) < sent:
                await self._wait(sent)
        except TimeoutError:
            await self.close()
            raise AdapterError(f"{self._url} did not answer within {timeout:g} s") from None
        except BaseException:
            await self.close()
            raise
        answers, self._answers = self._answers, []
        return answers

    async def read(self) -> Any:
        """The next thing the server says, however long that takes (subscriptions).

        :raises AdapterError: the connection broke.
        """
        if not self._answers:
            await self._wait(1)
        return self._answers.pop(0)

    def write(self, data: bytes) -> None:
        """Send without waiting for an answer.

        :raises AdapterError: the connection is broken.
        """
        if self._transport is None or self._lost is not None:
            raise self._broken()
        self._transport.write(data)

    async def close(self) -> None:
        """Hang up, whatever is under way."""
        if self._transport is not None:
            self._transport.abort()
        if self._alarm is not None:
            self._alarm.cancel()
        with suppress(driver.RedisError, OSError):
            await self._connection.disconnect(nowait=True)

    # waiting

    async def _wait(self, wanted: int) -> None:
        if self._lost is not None:
            raise self._broken()
        self._wanted = wanted
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _watch(self, timeout: float) -> None:
        """Give the exchange a deadline. A timer that rings too early is set again: most are never needed."""
        self._deadline = self._loop.time() + timeout
        if self._alarm is None or self._alarm_at > self._deadline:
            if self._alarm is not None:
                self._alarm.cancel()
            self._set_alarm()

    def _set_alarm(self) -> None:
        self._alarm_at = self._deadline
        self._alarm = self._loop.call_at(self._deadline, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        if self._waiter is not None and self._deadline > self._loop.time():
            self._set_alarm()
        else:
            self._fail(TimeoutError())

    def _fail(self, error: Exception) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)

    def _broken(self) -> AdapterError:
        return AdapterError(f"lost the connection to {self._url}: {self._lost or 'it was closed'}")

    # what the transport calls

    def data_received(self, data: bytes) -> None:
        answers = self._answers
        try:
            self._parser.feed(data)
            while (answer := self._parser.gets()) is not _INCOMPLETE:
                answers.append(answer)
        except hiredis.HiredisError as error:
            self._break(error)
            return
        if (
            self._wanted
            and len(answers) >= self._wanted
            and self._waiter is not None
            and not self._waiter.done()
        ):
            self._waiter.set_result(None)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        if self._waiter is not None and not self._wanted and not self._waiter.done():
            self._waiter.set_result(None)

    def eof_received(self) -> None:
        self._break(ConnectionResetError("the server hung up"))

    def connection_lost(self, error: Exception | None) -> None:
        self._break(error or ConnectionResetError("it was closed"))

    def _break(self, error: Exception) -> None:
        if self._lost is None:
            self._lost = error
            self._fail(self._broken())
        if self._transport is not None:
            self._transport.abort()
