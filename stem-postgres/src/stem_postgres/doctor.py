"""What ``stem doctor postgresql://...`` reports: the server, its settings that matter here, and the tables' health."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import psycopg

from stem_core.ports.specs import AdapterOptions
from stem_core.url import mask
from stem_postgres import migrate
from stem_postgres.connection import Connection, Database

__all__ = ["Finding", "report"]

_OLDEST_VERSION: Final = 150_000
_OLD_SNAPSHOT_SECONDS: Final = 60.0
_DEAD_ROWS: Final = 100_000


class Finding(NamedTuple):
    """One line: where it belongs, what it is, its value, and what is wrong with that (None: nothing)."""

    section: str
    key: str
    value: str
    warning: str | None = None


_SETTINGS: Final = """select name, setting, unit from pg_settings
where name in ('synchronous_commit', 'fsync', 'full_page_writes', 'autovacuum', 'max_connections',
               'idle_in_transaction_session_timeout', 'transaction_timeout') order by name"""

_SNAPSHOT: Final = """select coalesce(application_name, ''), state, extract(epoch from clock_timestamp() - xact_start)
from pg_stat_activity
where backend_xmin is not null and pid <> pg_backend_pid() and datname = current_database()
order by xact_start limit 1"""

_TABLES: Final = """select c.relname, coalesce(s.n_live_tup, 0), coalesce(s.n_dead_tup, 0),
       pg_total_relation_size(c.oid), s.last_autovacuum, coalesce(s.n_tup_upd, 0), coalesce(s.n_tup_hot_upd, 0)
from pg_class c join pg_namespace n on n.oid = c.relnamespace
left join pg_stat_user_tables s on s.relid = c.oid
where n.nspname = %(schema)s and c.relkind = 'r' order by c.relname"""

_REFUSED: Final = "select count(*) filter (where refused is null), count(*) filter (where refused is not null) from {s}.outbox"


async def report(url: str, options: AdapterOptions | None = None) -> list[Finding]:
    """Look, and change nothing. Each finding is (section, key, value, warning).

    :raises AdapterError: unreachable.
    :raises ConfigurationError: the role may not look at the schema.
    """
    database = Database(url, options or AdapterOptions())
    try:
        async with await database.connect(database.location.conninfo) as connection:
            findings = await _server(connection)
            findings += await _schema(database, connection)
            return findings
    except (psycopg.Error, OSError) as error:
        raise database.failure(error) from error


async def _server(connection: Connection) -> list[Finding]:
    version = connection.info.server_version
    old = "older than PostgreSQL 15, the oldest that is tested" if version < _OLDEST_VERSION else None
    found = [Finding("server", "version", f"{version // 10_000}.{version % 10_000}", old)]
    for name, setting, unit in await _rows(connection, _SETTINGS):
        found.append(Finding("settings", name, f"{setting}{unit or ''}", _objection(name, setting)))
    snapshots = await _rows(connection, _SNAPSHOT)
    if not snapshots:
        found.append(Finding("server", "oldest snapshot", "none"))
    for application, state, age in snapshots:
        warning = None
        if float(age or 0) > _OLD_SNAPSHOT_SECONDS:
            warning = (
                "it keeps vacuum from removing finished messages, and claims get slower: end that transaction"
            )
        found.append(
            Finding(
                "server",
                "oldest snapshot",
                f"{float(age or 0):.1f} s ({application or '?'}, {state})",
                warning,
            )
        )
    return found


def _objection(name: str, setting: str) -> str | None:
    if name in {"fsync", "full_page_writes"} and setting == "off":
        return "a crash can corrupt or lose everything; turn it on"
    if name == "synchronous_commit" and setting == "off":
        return "a crash can lose publishes that were acknowledged; turn it on for this role"
    if name == "autovacuum" and setting == "off":
        return "a queue's tables need it; turn it on"
    return None


async def _schema(database: Database, connection: Connection) -> list[Finding]:
    schema = database.location.schema
    applied = await migrate.applied(database, connection)
    missing = [f"{each.version:04}_{each.name}" for each in migrate.migrations() if each.version > applied]
    warning = (
        f"missing {', '.join(missing)}: run `stem migrate {mask(database.location.url)}`" if missing else None
    )
    found = [Finding("schema", "name", schema), Finding("schema", "migration", str(applied), warning)]
    if not applied:
        return found
    for table, live, dead, size, vacuumed, updated, hot in await _rows(
        connection, _TABLES, {"schema": schema}
    ):
        value = f"{live} rows, {dead} dead, {size / 1_048_576:.1f} MiB"
        if updated:
            value += f", {100 * hot / updated:.0f} % HOT updates"
        if vacuumed is not None:
            value += f", vacuumed {vacuumed:%Y-%m-%d %H:%M}"
        alarm = "autovacuum does not keep up" if dead > _DEAD_ROWS and dead > 2 * live else None
        found.append(Finding("tables", table, value, alarm))
    waiting, refused = (await _rows(connection, database.render(_REFUSED)))[0]
    complaint = f"{refused} can never be relayed; read outbox.refused" if refused else None
    found.append(Finding("outbox", "waiting", str(waiting), complaint))
    return found


async def _rows(
    connection: Connection, statement: Any, parameters: dict[str, Any] | None = None
) -> list[Any]:
    cursor = await connection.execute(statement, parameters)
    return await cursor.fetchall()
