"""The way to the database: a pool of autocommit connections, errors translated at the edge.

No session state is relied on, so a transaction-mode PgBouncer may stand in between (``?pgbouncer=1``: then
nothing is prepared either).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import select
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import psycopg
from psycopg import sql
from psycopg.pq import ConnStatus, Format, TransactionStatus
from psycopg.rows import TupleRow, tuple_row
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from stem_core.errors import AdapterError, StemError
from stem_core.ports.specs import AdapterOptions
from stem_core.url import mask
from stem_postgres.arrays import teach
from stem_postgres.link import Answered, Link
from stem_postgres.location import locate

__all__ = [
    "Again",
    "Connection",
    "Database",
    "Flow",
    "Query",
    "Rows",
    "Statement",
    "drive",
    "drive_sync",
    "is_lost",
]

T = TypeVar("T")
Connection = psycopg.AsyncConnection[TupleRow]
Rows = Sequence[TupleRow]

_RETRIED: Final = (
    "40P01",
    "40001",
)  # deadlock detected, serialization failure: rolled back, so safe to repeat
_ATTEMPTS: Final = 8
_OUTAGE_SECONDS: Final = 1.0
#: Connections that stay out of the pool between two callers: what a worker or a producer that rings uses at a time.
_MOST_AT_HAND: Final = 2
#: How often a connection at hand goes back, so that the pool can end what is past its lifetime.
_POOL_SEES_IT_EVERY: Final = 256
_PLACEHOLDER: Final = re.compile(r"%\((\w+)\)s")


class Query(NamedTuple):
    """A statement with ``{s}`` for the schema, and its named parameters."""

    template: str
    parameters: Mapping[str, Any]


class Statement(NamedTuple):
    """A query as PostgreSQL reads it ($1, $2, ...), and the names of its parameters in that order."""

    text: bytes
    names: tuple[str, ...]

    def values(self, parameters: Mapping[str, Any] | None) -> list[Any]:
        return [parameters[name] for name in self.names] if parameters else []


#: A transaction without I/O: yields statements, is sent their rows, returns its result. Driven by whoever has
#: the connection, async or sync.
Flow = Generator[Query, Rows, T]


class Database:
    """A pool of autocommit connections to one schema. Used from the event loop that opened it."""

    def __init__(self, url: str, options: AdapterOptions) -> None:
        self.location = locate(url, options.connect_timeout)
        self.namespace = options.namespace
        #: "postgresql 18.0", once open.
        self.server_version: str | None = None
        self._timeout = self.location.timeout
        self._schema = sql.Identifier(self.location.schema).as_string(None)
        self._statements: dict[str, Statement] = {}
        self._pool: AsyncConnectionPool[Connection] | None = None
        self._healing: asyncio.Task[None] | None = None
        self._closed = False
        self._out = False
        self._asking = 0
        self._at_hand: list[Connection] = []
        self.link: Link | None = None
        """For what need not be waited for; None where connections are somebody else's, or only one is allowed."""
        if not self.location.pooled and self.location.size > 1:
            self.link = Link(lambda: self.connect(self.location.conninfo))
        self._returns = 0

    async def open(self, prepare: Callable[[Connection], Awaitable[T]]) -> T:
        """Connect, let ``prepare`` do what must be done first on a plain connection, and open the pool.

        :raises AdapterError: unreachable within ``connect_timeout``.
        """
        if self._closed:
            raise self._use_after_close()
        try:
            # A plain connection's error says why; the pool's would only say that it waited.
            async with asyncio.timeout(self._timeout):
                connection = await self.connect(self.location.conninfo)
            async with connection:
                self.server_version = _version(connection)
                prepared = await prepare(connection)
        except (psycopg.Error, OSError, TimeoutError) as error:
            raise self.failure(error) from error
        self._pool = AsyncConnectionPool(
            self.location.conninfo,
            min_size=1,
            max_size=self.location.size,
            timeout=self._timeout,
            max_idle=60.0,
            # Attempts at 0, 1 and 3 seconds, then a new caller starts over: a long outage never means a long wait.
            reconnect_timeout=5.0,
            configure=self._configure,
            kwargs={"autocommit": True},
            open=False,
        )
        await self._pool.open()
        return prepared

    async def close(self) -> None:
        """Release every connection; again is fine."""
        self._closed = True
        if self._healing is not None:
            self._healing.cancel()
        if self.link is not None:
            await self.link.close()
        pool, self._pool = self._pool, None
        spares, self._at_hand = self._at_hand, []
        for spare in spares:
            await spare.close()
        if pool is not None:
            await pool.close()

    @property
    def closed(self) -> bool:
        return self._closed

    async def connect(self, conninfo: str) -> Connection:
        """A connection outside the pool."""
        connection = await psycopg.AsyncConnection.connect(conninfo, autocommit=True)
        await self._configure(connection)
        return connection

    def render(self, template: str) -> bytes:
        """The text for this schema, its placeholders as they are."""
        return template.replace("{s}", self._schema).encode()

    def statement(self, template: str) -> Statement:
        """The statement for this schema. Kept: psycopg would take ours apart at every call, for their length."""
        statement = self._statements.get(template)
        if statement is None:
            names = tuple(dict.fromkeys(_PLACEHOLDER.findall(template)))
            text = _PLACEHOLDER.sub(lambda found: f"${names.index(found[1]) + 1}", template)
            statement = self._statements[template] = Statement(self.render(text), names)
        return statement

    async def run(self, template: str, parameters: Mapping[str, Any] | None = None) -> list[TupleRow]:
        """One statement in a transaction of its own; repeated when it lost a deadlock."""
        statement = self.statement(template)
        values = statement.values(parameters)
        for attempt in range(_ATTEMPTS):
            try:
                async with self._connection() as connection:
                    cursor = _cursor(connection)
                    await cursor.execute(statement.text, values, prepare=True)  # unless it may not be
                    return await cursor.fetchall() if _has_rows(cursor) else []
            except psycopg.Error as error:
                await self._after(error, attempt)
        raise AssertionError("unreachable")

    def begin(self, query: Query, timeout: float, answered: Answered) -> bool:
        """Send one statement, a transaction of its own, without waiting. False: it cannot be done so now.

        :param answered: told the number of rows, or what it failed with.
        """
        if self.link is None or self._closed:
            return False
        statement = self.statement(query.template)
        return self.link.begin(statement.text, statement.values(query.parameters), timeout, answered)

    async def alone(self, flow: Callable[[], Flow[T]]) -> T:
        """A flow each of whose statements may be its own transaction."""
        made = flow()
        try:
            query = next(made)
            while True:
                query = made.send(await self.run(query.template, query.parameters))
        except StopIteration as end:
            result: T = end.value
            return result

    async def transact(self, flow: Callable[[], Flow[T]]) -> T:
        """A whole flow in one transaction; started over when it lost a deadlock or asks for it."""
        for attempt in range(_ATTEMPTS):
            try:
                async with self._connection() as connection, connection.transaction():
                    return await drive(flow(), connection, self.statement)
            except Again:
                await asyncio.sleep(random.uniform(0, 0.01) * attempt)
            except psycopg.Error as error:
                await self._after(error, attempt)
        raise AdapterError(
            f"{mask(self.location.url)}: gave up after {_ATTEMPTS} attempts at a contended transaction; try again"
        )

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection in a transaction that ends with the block."""
        try:
            async with self._connection() as connection, connection.transaction():
                yield connection
        except psycopg.Error as error:
            if is_lost(error):
                self._heal()
            raise self.failure(error) from error

    async def _after(self, error: psycopg.Error, attempt: int) -> None:
        if error.sqlstate in _RETRIED and attempt + 1 < _ATTEMPTS:
            await asyncio.sleep(random.uniform(0, 0.02) * (attempt + 1))
            return
        if is_lost(error):
            self._heal()
        raise self.failure(error) from error

    def _heal(self) -> None:
        """Look over the idle connections once: where one died, its neighbours usually did."""
        pool = self._pool
        if pool is not None and (self._healing is None or self._healing.done()):
            self._healing = asyncio.create_task(_quietly(pool))

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        pool = self._pool
        if pool is None:
            raise self._use_after_close() if self._closed else StemError(f"{self} is not open; await open()")
        connection = await self._take(pool)
        try:
            yield connection
        finally:
            self._returns += 1
            if self._may_stay(connection, pool):
                self._at_hand.append(connection)
            else:  # a cancellation while it is returned would lose its place in the pool for good
                await asyncio.shield(pool.putconn(connection))

    def _may_stay(self, connection: Connection, pool: AsyncConnectionPool[Connection]) -> bool:
        """Whether to have it at hand for the next caller, who gets what was used last: a backend that has just done
        the same is a fifth faster, and the pool's turns would keep all of them cold.
        """
        return (
            len(self._at_hand) < _MOST_AT_HAND
            and self._pool is pool
            and not self._asking
            and self._returns % _POOL_SEES_IT_EVERY != 0
            and connection.pgconn.transaction_status == TransactionStatus.IDLE
        )

    async def _take(self, pool: AsyncConnectionPool[Connection]) -> Connection:
        # The first caller in an outage waits its time out; while it lasts, the next ones soon know.
        timeout = min(self._timeout, _OUTAGE_SECONDS) if self._out else self._timeout
        deadline = time.monotonic() + timeout
        self._asking += 1
        try:
            # The pool would check for us, but pause a second, then two, after each dead connection: a restarted
            # server that leaves eight of them would cost the next caller its whole timeout.
            while True:
                if self._at_hand:
                    connection = self._at_hand.pop()
                else:
                    connection = await _given(pool, deadline - time.monotonic())
                if _alive(connection):
                    break
                await connection.close()
                await asyncio.shield(pool.putconn(connection))
        except PoolClosed as error:
            raise self._use_after_close() from error
        except PoolTimeout:
            self._out = True
            raise
        finally:
            self._asking -= 1
        self._out = False
        return connection

    async def _configure(self, connection: Connection) -> None:
        teach(connection)
        connection.prepare_threshold = None if self.location.pooled else 2

    def failure(self, error: BaseException) -> AdapterError:
        """What the core is told of a driver's error."""
        text = str(error).strip() or type(error).__name__
        state = getattr(error, "sqlstate", None)
        return AdapterError(f"{mask(self.location.url)}: {text}{f' [{state}]' if state else ''}")

    def _use_after_close(self) -> StemError:
        return StemError(f"{self} is closed; make a new one")

    def __repr__(self) -> str:
        return f"<PostgreSQL {mask(self.location.url)}>"


class Again(Exception):
    """A flow found that another transaction came first: roll back and start over."""


async def drive(
    flow: Flow[T], connection: psycopg.AsyncConnection[Any], render: Callable[[str], Statement]
) -> T:
    """Run a flow on an async connection, inside whatever transaction that has."""
    cursor = _cursor(connection)
    teach(cursor)
    rows: Rows | None = None
    while True:
        try:
            query = next(flow) if rows is None else flow.send(rows)
        except StopIteration as end:
            result: T = end.value
            return result
        statement = render(query.template)
        await cursor.execute(statement.text, statement.values(query.parameters))
        rows = await cursor.fetchall() if _has_rows(cursor) else []


def drive_sync(flow: Flow[T], connection: psycopg.Connection[Any], render: Callable[[str], Statement]) -> T:
    """The same on a sync connection."""
    cursor = psycopg.RawCursor(connection, row_factory=tuple_row)
    cursor.format = Format.BINARY
    teach(cursor)
    rows: Rows | None = None
    while True:
        try:
            query = next(flow) if rows is None else flow.send(rows)
        except StopIteration as end:
            result: T = end.value
            return result
        statement = render(query.template)
        cursor.execute(statement.text, statement.values(query.parameters))
        rows = cursor.fetchall() if _has_rows(cursor) else []


def _cursor(connection: psycopg.AsyncConnection[Any]) -> psycopg.AsyncRawCursor[TupleRow]:
    cursor = psycopg.AsyncRawCursor(connection, row_factory=tuple_row)
    cursor.format = Format.BINARY
    return cursor


def _has_rows(cursor: psycopg.AsyncRawCursor[TupleRow] | psycopg.RawCursor[TupleRow]) -> bool:
    # As ``cursor.description`` says, which makes an object per column to say it.
    return cursor.pgresult is not None and cursor.pgresult.nfields > 0


def is_lost(error: BaseException) -> bool:
    """Whether the connection went, so that nobody knows how the statement ended."""
    state: str | None = getattr(error, "sqlstate", None)
    if state is None:
        return isinstance(error, psycopg.OperationalError)
    return state[:2] == "08" or state[:3] == "57P"


def _version(connection: Connection) -> str | None:
    """What the server said of itself while connecting, without what a distribution adds in brackets."""
    said = connection.info.parameter_status("server_version")
    return f"postgresql {said.split()[0]}" if said else None


def _alive(connection: Connection) -> bool:
    """Notice a connection that died while idle without asking the server: its socket has something to say."""
    poll = select.poll()
    poll.register(connection.pgconn.socket, select.POLLIN)
    if not poll.poll(0):
        return True
    try:
        connection.pgconn.consume_input()  # a notice or a changed parameter is fine, the end is not
    except psycopg.OperationalError:
        return False
    return connection.pgconn.status == ConnStatus.OK and not poll.poll(0)


async def _given(pool: AsyncConnectionPool[Connection], timeout: float) -> Connection:
    """The pool's next connection. The pool waits by asyncio.wait_for, which before Python 3.12 drops a cancellation
    that comes at the same moment as what it waits for; here it is not dropped.
    """
    task = asyncio.current_task()
    cancelled = task.cancelling() if task else 0
    connection = await pool.getconn(timeout)
    if task and task.cancelling() > cancelled:
        await asyncio.shield(pool.putconn(connection))
        raise asyncio.CancelledError
    return connection


async def _quietly(pool: AsyncConnectionPool[Connection]) -> None:
    with contextlib.suppress(psycopg.Error):
        await pool.check()
