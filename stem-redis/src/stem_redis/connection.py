"""The connections to one server.

A pool of them for short commands, one for what is begun without waiting (:meth:`Server.begin`), and some lent to who
blocks (:meth:`Server.lend`). Nothing is sent twice: a request that may have reached the server fails, and the caller,
who knows what a repeat would do, decides. Every request has a deadline, so a half-open connection is noticed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from redis import exceptions as driver
from redis.asyncio.connection import AbstractConnection, Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from stem_core.errors import AdapterError, ConfigurationError
from stem_core.ports.specs import AdapterOptions
from stem_core.url import mask, unescaped
from stem_redis.errors import Refused, is_unknown_script, refusal
from stem_redis.link import Answered, Command, Link, pack
from stem_redis.scripts import SCRIPTS, Script

__all__ = ["Server", "call_of"]

#: URL options for redis-py's connection, besides those of this package.
_DRIVER_OPTIONS: Final = {
    "db",
    "ssl_ca_certs",
    "ssl_cert_reqs",
    "ssl_certfile",
    "ssl_check_hostname",
    "ssl_keyfile",
    "ssl_keyfile_password",
    "socket_keepalive",
}
_OWN_OPTIONS: Final = {"timeout", "max_connections"}
_TIMEOUT: Final = 10.0
_MAX_CONNECTIONS: Final = 16


class Server:
    """The server behind a URL, as one adapter uses it on one event loop."""

    def __init__(self, url: str, options: AdapterOptions) -> None:
        self.masked = mask(url)
        self._connect_timeout = options.connect_timeout
        self._kind, self._arguments, own = _parse(url)
        self.timeout: float = own["timeout"]
        self._slots = asyncio.Semaphore(own["max_connections"])
        self._idle: list[Link] = []
        self._lent: set[Link] = set()
        self._pipe: Link | None = None
        self._opened = False
        self._closed = False
        self.identity: tuple[object, ...] | None = None
        """Equal for two servers when they are one: same process, database and user. None when unknown."""
        self.version: str | None = None
        """What it is, such as "valkey 9.0.0". None before :meth:`open`, and where the user may not ask."""

    # life

    async def open(self) -> None:
        """Connect once, load the scripts and learn who the server is.

        :raises AdapterError: unreachable or refused.
        :raises ConfigurationError: a cluster node, or a server too old.
        """
        self._opened = True
        loads: list[Command] = [("SCRIPT", "LOAD", script.text) for script in SCRIPTS.values()]
        info, *loaded = await self._exchange([("INFO", "server"), *loads])
        for answer in loaded:
            self.raise_refusal(answer)
        if isinstance(info, driver.ResponseError):  # INFO is not for every user; then nothing is joined
            return
        facts = dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)
        if "cluster" in (facts.get("redis_mode"), facts.get("server_mode")):
            await self.close()
            raise ConfigurationError(
                f"{self.masked} is a cluster node, which stem-redis does not support yet"
            )
        kind = facts.get("server_name", "redis")
        version = facts.get("redis_version", "7")  # of Valkey, the version it is compatible with
        self.version = f"{kind} {facts.get(f'{kind}_version', version)}"
        if int(version.partition(".")[0]) < 7:
            await self.close()
            raise ConfigurationError(
                f"{self.masked} is version {version}; stem-redis needs Redis 7 or Valkey"
            )
        arguments = self._arguments
        self.identity = (facts["run_id"], int(arguments.get("db", 0)), arguments.get("username"))

    async def close(self) -> None:
        self._closed = True
        links, self._idle = [*self._idle, *self._lent], []
        if self._pipe is not None:
            links.append(self._pipe)
        self._lent.clear()
        for link in links:
            await link.close()

    def check_open(self) -> None:
        """:raises AdapterError: not opened yet, or closed."""
        if self._closed:
            raise AdapterError(f"the adapter for {self.masked} is closed")
        if not self._opened:
            raise AdapterError(f"the adapter for {self.masked} is not open: await open() first")

    # requests

    async def run(self, script: str, keys: Sequence[str] = (), *args: bytes | str | int) -> Any:
        """Run a script once.

        :raises AdapterError: it may have run; :exc:`Refused` and :exc:`Unreached`: it has not.
        """
        (answer,) = await self._exchange([self.invocation(script, keys, *args)])
        return await self.answer_of(answer, script, keys, *args)

    def invocation(self, script: str, keys: Sequence[str], *args: bytes | str | int) -> Command:
        """The command that runs a script; :meth:`answer_of` reads its answer."""
        return call_of(SCRIPTS[script], keys, args)

    async def answer_of(self, answer: Any, script: str, keys: Sequence[str], *args: bytes | str | int) -> Any:
        """What a script answered to its :meth:`invocation`. Run again if the server did not know it.

        :raises AdapterError: as :meth:`run`.
        """
        if is_unknown_script(answer):  # it restarted, or was flushed
            (answer,) = await self._exchange([("EVAL", SCRIPTS[script].text, len(keys), *keys, *args)])
        self.raise_refusal(answer)
        return answer

    def begin(self, command: Command, timeout: float, answered: Answered) -> bool:
        """Send a command now, behind those begun before it, and tell ``answered`` in time what came of it.

        :param timeout: seconds after which it fails, if :attr:`timeout` is not less.
        :returns: False when no connection is at hand, or the server takes less than it is sent; nothing was sent.
        """
        pipe = self._pipe
        if pipe is None or not pipe.alive:
            pipe = self._pipe = self._another_pipe(pipe)
        if pipe is None or pipe.full:
            return False
        pipe.begin([pack(*command)], min(timeout, self.timeout), answered)
        return True

    def _another_pipe(self, broken: Link | None) -> Link | None:
        """A connection out of the pool, which may make another. It gets the broken one, to be closed with time."""
        if self._closed:
            return None
        pipe = next((each for each in self._idle if each.alive), None)
        if pipe is not None:
            self._idle.remove(pipe)
        if broken is not None:
            self._idle.append(broken)
        return pipe

    async def run_all(
        self, script: Script, calls: Iterable[tuple[Sequence[str], Sequence[bytes | str | int]]]
    ) -> list[Any]:
        """Run a script several times in one round trip.

        :raises AdapterError: as :meth:`run`; :exc:`Refused` only when the first call was refused.
        """
        sent: list[Command] = []

        def commands() -> Iterator[Command]:
            for keys, args in calls:
                sent.append(call_of(script, keys, args))
                yield sent[-1]

        return await self.answers_of(script, sent, await self._exchange(commands()))

    async def answers_of(self, script: Script, sent: Sequence[Command], answers: list[Any]) -> list[Any]:
        """What a script answered to calls that were sent. Those for which the server did not know it run now.

        :raises AdapterError: as :meth:`run_all`.
        """
        lost = [n for n, answer in enumerate(answers) if is_unknown_script(answer)]
        if lost:
            again: list[Command] = [("EVAL", script.text, *sent[n][2:]) for n in lost]
            for n, answer in zip(lost, await self._exchange(again), strict=True):
                answers[n] = answer
        for n, answer in enumerate(answers):
            if isinstance(answer, driver.ResponseError):
                error = refusal(answer, self.masked)
                if n and isinstance(error, Refused):
                    error = AdapterError(str(error))
                raise error from answer
        return answers

    async def command(self, *args: bytes | str | int) -> Any:
        """Run one command.

        :raises AdapterError: as :meth:`run`.
        """
        (answer,) = await self._exchange([args])
        self.raise_refusal(answer)
        return answer

    async def commands(self, commands: Sequence[Command]) -> list[Any]:
        """Run several commands in one round trip; an error the server answered stands in its place."""
        return await self._exchange(commands)

    def raise_refusal(self, answer: Any) -> None:
        """Raise what the server answered, if it is an error."""
        if isinstance(answer, driver.ResponseError):
            raise refusal(answer, self.masked) from answer

    async def _exchange(self, commands: Iterable[Command]) -> list[Any]:
        async with self._slots:
            link = await self._take()
            answers = await link.exchange((pack(*each) for each in commands), self.timeout)
            if self._closed:
                await link.close()
            else:
                self._idle.append(link)
        return answers

    async def _take(self) -> Link:
        self.check_open()
        while self._idle:
            link = self._idle.pop()
            if link.alive:
                return link
            await link.close()
        return await self._connect()

    async def _connect(self) -> Link:
        connection = self._kind(
            **self._arguments,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            socket_timeout=None,
            socket_connect_timeout=self._connect_timeout,
        )
        link = Link(connection, self.masked)
        await link.connect(self._connect_timeout)
        return link

    # connections of their own

    async def lend(self) -> Link:
        """A connection for somebody who blocks on it; outside the pool's bound. Give it back."""
        link = await self._take()
        self._lent.add(link)
        return link

    async def give_back(self, link: Link) -> None:
        """Take a link back that was lent, if no answer is outstanding on it; else close it first."""
        self._lent.discard(link)
        if link.alive and not self._closed:
            self._idle.append(link)
        else:
            await link.close()


def call_of(script: Script, keys: Sequence[str], args: Sequence[bytes | str | int]) -> Command:
    """The command that runs a script."""
    return ("EVALSHA", script.sha, len(keys), *keys, *args)


def _parse(url: str) -> tuple[type[AbstractConnection], dict[str, Any], dict[str, Any]]:
    """redis-py's connection class and arguments for a URL, and this package's own options.

    :raises ConfigurationError: an unknown or unreadable option, or no path of a unix socket.
    """
    try:
        arguments: dict[str, Any] = dict(parse_url(url))
    except ValueError as error:
        # What the driver says of such a URL quotes a part of the password.
        why = "percent-encode / ? # in its user name and password" if unescaped(url) else error
        raise ConfigurationError(f"{mask(url)!r} is not a Redis URL: {why}") from None
    kind = arguments.pop("connection_class", Connection)
    given = {name: arguments.pop(name) for name in _OWN_OPTIONS & arguments.keys()}
    unknown = sorted(
        arguments.keys()
        - _DRIVER_OPTIONS
        - {"host", "port", "path", "username", "password", "unix_socket_path"}
    )
    if unknown:
        raise ConfigurationError(
            f"{mask(url)!r} has the unknown option {unknown[0]!r}; there are "
            f"{', '.join(sorted(_OWN_OPTIONS | _DRIVER_OPTIONS))}"
        )
    if url.startswith("unix:") and not arguments.get("path"):
        raise ConfigurationError(f"{mask(url)!r} names no socket; write unix:///path/to/redis.sock?db=0")
    try:
        own = {
            "timeout": float(given.get("timeout", _TIMEOUT)),
            "max_connections": int(given.get("max_connections", _MAX_CONNECTIONS)),
        }
    except ValueError as error:
        raise ConfigurationError(f"{mask(url)!r}: {error}") from None
    if own["timeout"] <= 0 or own["max_connections"] < 1:
        raise ConfigurationError(f"{mask(url)!r}: timeout and max_connections must be more than 0")
    if kind is Connection or "host" in arguments:
        arguments.setdefault("socket_keepalive", True)
    return kind, arguments, own
