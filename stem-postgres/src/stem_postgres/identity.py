"""Which store an adapter is connected to, so that broker and backend can tell whether they share one."""

from __future__ import annotations

from typing import Final

from stem_postgres.connection import Database

__all__ = ["identity_of"]

#: A running server, told from its copies and restored twins by when it started.
_IDENTITY: Final = """select pg_postmaster_start_time()::text, d.oid::bigint, n.oid::bigint
from pg_database d, pg_namespace n
where d.datname = current_database() and n.nspname = %(schema)s"""


async def identity_of(database: Database) -> tuple[object, ...]:
    """Equal for two adapters exactly when they use one namespace of one schema of one running server."""
    rows = await database.run(_IDENTITY, {"schema": database.location.schema})
    return (*(rows[0] if rows else ()), database.namespace)
