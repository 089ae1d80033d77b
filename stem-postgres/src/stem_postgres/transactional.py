"""Steps in the caller's own transaction: his commit publishes, his rollback leaves nothing.

Accepts psycopg connections, and SQLAlchemy's, Django's or a pool's wrappers around them. Never commits. Where a
transaction would begin and end with our statement (autocommit, none open) it refuses, because that would
publish whatever becomes of the caller's work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from stem_core.errors import ConfigurationError
from stem_core.ports.committer import Step
from stem_core.status import RANK_TERMINAL
from stem_postgres import steps as flows
from stem_postgres.connection import Again, Database, Flow, drive, drive_sync
from stem_postgres.steps import Done, Scope

__all__ = ["async_connection", "run_async", "run_sync", "sync_connection"]

_ATTEMPTS = 8


async def run_async(conn: Any, steps: Sequence[Step], scope: Scope, database: Database) -> list[bool]:
    """Do ``steps`` on the caller's async connection.

    :raises ConfigurationError: not an async psycopg connection, or no transaction.
    """
    connection = await async_connection(conn)
    flow, gated = _flow(steps, scope)
    for _ in range(_ATTEMPTS):
        try:
            if not gated:
                return (await drive(flow(), connection, database.statement)).answers
            async with connection.transaction():  # a savepoint: a contended decision is taken again
                return (await drive(flow(), connection, database.statement)).answers
        except Again:
            continue
        except psycopg.Error as error:
            raise database.failure(error) from error
    raise database.failure(
        RuntimeError("a status in this transaction stays contended; roll back and try again")
    )


def run_sync(conn: Any, steps: Sequence[Step], scope: Scope, database: Database) -> list[bool]:
    """Do ``steps`` on the caller's sync connection, on this thread.

    :raises ConfigurationError: not a sync psycopg connection, or no transaction.
    """
    connection = sync_connection(conn)
    flow, gated = _flow(steps, scope)
    for _ in range(_ATTEMPTS):
        try:
            if not gated:
                return drive_sync(flow(), connection, database.statement).answers
            with connection.transaction():
                return drive_sync(flow(), connection, database.statement).answers
        except Again:
            continue
        except psycopg.Error as error:
            raise database.failure(error) from error
    raise database.failure(
        RuntimeError("a status in this transaction stays contended; roll back and try again")
    )


def _flow(steps: Sequence[Step], scope: Scope) -> tuple[Callable[[], Flow[Done]], bool]:
    gated = any(update.rank == RANK_TERMINAL for step in steps for update in step.updates)
    _, others = flows.divide(steps)
    work = flows.careful if others else flows.simple

    def flow() -> Flow[Done]:
        return work(steps, scope)

    return flow, gated and bool(others)


async def async_connection(conn: Any) -> psycopg.AsyncConnection[Any]:
    """The psycopg async connection behind ``conn``.

    :raises ConfigurationError: there is none, or it is outside a transaction.
    """
    if hasattr(conn, "get_raw_connection"):  # SQLAlchemy's AsyncConnection
        if not conn.in_transaction():
            await conn.begin()
        conn = (await conn.get_raw_connection()).driver_connection
    if isinstance(conn, psycopg.Connection):
        raise ConfigurationError(
            "publish_connection is a sync connection; use enqueue_sync with it, or pass an "
            "async one (psycopg.AsyncConnection) to `await enqueue`"
        )
    if not isinstance(conn, psycopg.AsyncConnection):
        raise _unknown(conn, "psycopg.AsyncConnection, or SQLAlchemy's AsyncConnection on psycopg")
    _check_transaction(conn)
    return conn


def sync_connection(conn: Any) -> psycopg.Connection[Any]:
    """The psycopg connection behind ``conn``.

    :raises ConfigurationError: there is none, or it is outside a transaction.
    """
    given = conn
    for _ in range(4):  # session -> connection -> pool's proxy -> driver
        if isinstance(conn, psycopg.Connection | psycopg.AsyncConnection):
            break
        if callable(getattr(conn, "in_transaction", None)) and callable(getattr(conn, "connection", None)):
            conn = conn.connection()  # SQLAlchemy's Session: joins, or begins, its transaction
            continue
        if callable(getattr(conn, "in_transaction", None)) and not conn.in_transaction():
            conn.begin()  # SQLAlchemy's Connection would not know of what we do below it
        conn = getattr(conn, "driver_connection", None) or getattr(conn, "connection", None)
    if isinstance(conn, psycopg.AsyncConnection):
        raise ConfigurationError(
            "publish_connection is an async connection; use `await enqueue` with it, or pass "
            "a sync one (psycopg.Connection) to enqueue_sync"
        )
    if not isinstance(conn, psycopg.Connection):
        raise _unknown(given, "psycopg.Connection, or SQLAlchemy's or Django's connection on psycopg 3")
    _check_transaction(conn)
    return conn


def _check_transaction(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    if connection.autocommit and connection.info.transaction_status == TransactionStatus.IDLE:
        raise ConfigurationError(
            "publish_connection is in autocommit mode and has no open transaction, so the publish "
            "would not depend on yours; wrap both in `with connection.transaction():`"
        )


def _unknown(conn: object, expected: str) -> ConfigurationError:
    kind = f"{type(conn).__module__}.{type(conn).__qualname__}"
    return ConfigurationError(f"publish_connection is a {kind}; expected {expected}")
