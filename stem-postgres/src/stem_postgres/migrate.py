"""The schema and its numbered migrations: ``migrations/NNNN_name.sql``, each applied once, in order.

Everything happens in one transaction under a transaction-level advisory lock, so sixteen processes that start
together apply each file once, through PgBouncer too. A schema newer than this code is left alone and used: code
and schema of neighbouring versions work with each other.
"""

# ruff: noqa: S608 - the script is made of our own files and quoted names

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources
from typing import Final, NamedTuple

import psycopg
from psycopg import sql

from stem_core.errors import ConfigurationError
from stem_core.ports.specs import AdapterOptions
from stem_core.url import mask
from stem_postgres.connection import Connection, Database
from stem_postgres.location import locate

__all__ = ["Migration", "applied", "ensure", "migrate", "migrations", "script"]


class Migration(NamedTuple):
    """One file: its number, its name, and its SQL with ``{s}`` for the schema."""

    version: int
    name: str
    template: str


_LEDGER: Final = """create table if not exists {s}.migration (
    version    integer primary key,
    name       text not null,
    applied_at timestamptz not null default clock_timestamp()
)"""
_FORBIDDEN: Final = ("42501", "25006")  # no privilege; read-only transaction
_ABSENT: Final = ("42P01", "3F000")  # no such table; no such schema


@cache
def migrations() -> tuple[Migration, ...]:
    """Every migration of this version, oldest first."""
    found = []
    for file in resources.files("stem_postgres").joinpath("migrations").iterdir():
        number, _, name = file.name.removesuffix(".sql").partition("_")
        if file.name.endswith(".sql"):
            found.append(Migration(int(number), name, file.read_text("utf-8")))
    return tuple(sorted(found))


def script(schema: str) -> str:
    """All migrations as one SQL script, to be read, or run by whoever may."""
    quoted = sql.Identifier(schema).as_string(None)
    lines = ["begin;", f"create schema if not exists {quoted};", f"{_LEDGER.replace('{s}', quoted)};"]
    for each in migrations():
        lines += [f"\n-- {each.version:04}_{each.name}", each.template.replace("{s}", quoted).rstrip()]
        name = sql.Literal(each.name).as_string(None)
        lines.append(f"insert into {quoted}.migration (version, name) values ({each.version}, {name});")
    return "\n".join([*lines, "commit;"]) + "\n"


async def migrate(url: str, *, sql_only: bool = False) -> str:
    """Bring the schema of ``url`` up to date; what was done, as text. ``sql_only`` returns the script instead.

    :raises ConfigurationError: the role may not create what is missing.
    :raises AdapterError: unreachable.
    """
    if sql_only:
        return script(locate(url).schema)
    database = Database(url, AdapterOptions())
    try:
        connection = await database.connect(database.location.conninfo)
    except (psycopg.Error, OSError) as error:
        raise database.failure(error) from error
    async with connection:
        done = await _apply(database, connection)
    names = ", ".join(f"{each.version:04}_{each.name}" for each in done)
    return f"applied {names}" if done else "up to date"


async def ensure(database: Database, connection: Connection) -> None:
    """Called on open: look, and migrate when something is missing and the URL allows it.

    :raises ConfigurationError: the schema is missing or old, and may not be changed from here.
    """
    if await applied(database, connection) >= migrations()[-1].version:
        return
    if not database.location.migrate:
        raise _incomplete(database, "migrate=0 forbids to change it")
    await _apply(database, connection)


async def applied(database: Database, connection: Connection) -> int:
    """The highest version applied; 0 when there is no schema at all.

    :raises ConfigurationError: the role may not look.
    """
    try:
        cursor = await connection.execute(database.render("select max(version) from {s}.migration"))
    except psycopg.Error as error:
        if error.sqlstate in _ABSENT:
            return 0
        if error.sqlstate in _FORBIDDEN:
            raise _incomplete(database, f"this role may not read it ({str(error).strip()})") from error
        raise database.failure(error) from error
    row = await cursor.fetchone()
    return (row and row[0]) or 0


async def _apply(database: Database, connection: Connection) -> list[Migration]:
    """Apply what is missing.

    :raises ConfigurationError: the role lacks a privilege.
    """
    try:
        async with connection.transaction():
            key = _lock_key(database.location.schema)
            await connection.execute("select pg_advisory_xact_lock(%s)", [key])
            version = await _version_inside(database, connection)
            done = [each for each in migrations() if each.version > version]
            if done and not version:
                await connection.execute(database.render("create schema if not exists {s}"))
                await connection.execute(database.render(_LEDGER))
            for each in done:
                await connection.execute(database.render(each.template))
                await connection.execute(
                    database.render("insert into {s}.migration (version, name) values (%s, %s)"),
                    [each.version, each.name],
                )
            return done
    except psycopg.Error as error:
        if error.sqlstate in _FORBIDDEN:
            raise _incomplete(database, f"this role may not create it ({str(error).strip()})") from error
        raise database.failure(error) from error


async def _version_inside(database: Database, connection: Connection) -> int:
    cursor = await connection.execute(
        "select to_regclass(%s) is not null", [database.render("{s}.migration").decode()]
    )
    row = await cursor.fetchone()
    return await applied(database, connection) if row and row[0] else 0


def _lock_key(schema: str) -> int:
    digest = hashlib.blake2b(f"stem migrate {schema}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def _incomplete(database: Database, why: str) -> ConfigurationError:
    url = mask(database.location.url)
    return ConfigurationError(
        f"The schema {database.location.schema!r} at {url} is missing or not up to date, and {why}. Run "
        f"`stem migrate {url}` as a role that may create schemas and tables, or give its owner the SQL of "
        "`stem migrate --sql`; then grant this role USAGE on the schema and SELECT, INSERT, UPDATE, DELETE on its "
        "tables, USAGE on its sequences."
    )
