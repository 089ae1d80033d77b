"""Which store an adapter is connected to, so that broker and backend can tell whether they share one."""

from __future__ import annotations

from typing import Final

from stem_postgres import migrate
from stem_postgres.connection import Connection, Database

__all__ = ["Identity", "prepare"]

Identity = tuple[object, ...]

#: A running server, told from its copies and restored twins by when it started.
_IDENTITY: Final = """select pg_postmaster_start_time()::text, d.oid::bigint, n.oid::bigint
from pg_database d, pg_namespace n
where d.datname = current_database() and n.nspname = %(schema)s"""


async def prepare(database: Database, connection: Connection) -> Identity:
    """See to the schema; then what is equal for two adapters exactly when they use one namespace of one schema of
    one running server.

    :raises ConfigurationError: the schema is missing or old, and may not be changed from here.
    """
    await migrate.ensure(database, connection)
    cursor = await connection.execute(_IDENTITY, {"schema": database.location.schema})
    return (*(await cursor.fetchone() or ()), database.namespace)
