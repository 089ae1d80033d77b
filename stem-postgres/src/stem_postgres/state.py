"""Shared values under compare-and-set: one statement each, decided under the row's lock."""

# ruff: noqa: S608 - statements are put together from constants of ours; values travel as parameters

from __future__ import annotations

from datetime import UTC
from typing import Final

from stem_core.ports.backend import StateEntry, StateRead
from stem_postgres.connection import Database

__all__ = ["PRUNE", "delete", "read", "scan", "write"]

_LIVE: Final = "expires_at > clock_timestamp()"

_READ: Final = f"""select value, version, clock_timestamp() from
(select 1) as one left join {{s}}.state on namespace = %(namespace)s and key = %(key)s and {_LIVE}"""

_EXPIRES: Final = "coalesce(clock_timestamp() + make_interval(secs => %(ttl)s), 'infinity')"

_CREATE: Final = f"""insert into {{s}}.state as t (namespace, key, value, version, expires_at)
values (%(namespace)s, %(key)s, %(value)s, nextval('{{s}}.state_version'), {_EXPIRES})
on conflict (namespace, key) do update
set value = excluded.value, version = nextval('{{s}}.state_version'), expires_at = excluded.expires_at
where t.expires_at <= clock_timestamp()
returning version"""

_REPLACE: Final = f"""update {{s}}.state
set value = %(value)s, version = nextval('{{s}}.state_version'), expires_at = {_EXPIRES}
where namespace = %(namespace)s and key = %(key)s and version = %(expect)s and {_LIVE}
returning version"""

_DELETE: Final = f"""delete from {{s}}.state
where namespace = %(namespace)s and key = %(key)s and (%(expect)s::bigint is null or version = %(expect)s)
returning {_LIVE}"""

_SCAN: Final = f"""select key, value, version from {{s}}.state
where namespace = %(namespace)s and key >= %(prefix)s and starts_with(key, %(prefix)s) and {_LIVE}
order by key"""

_SCAN_BELOW: Final = _SCAN.replace("and starts_with", "and key < %(end)s and starts_with")

PRUNE: Final = """delete from {s}.state
where (namespace, key) in (
    select namespace, key from {s}.state where expires_at <= statement_timestamp()
    order by expires_at limit 1000 for update skip locked)
returning 1"""


async def read(database: Database, key: str) -> StateRead:
    """The value, its version, and the store's clock."""
    rows = await database.run(_READ, {"namespace": database.namespace, "key": key})
    value, version, now = rows[0]
    return StateRead(value, version or 0, now.astimezone(UTC))


async def write(database: Database, key: str, value: bytes, expect: int, ttl: float | None) -> int | None:
    """The new version, or None when ``expect`` is not the present one."""
    parameters = {"namespace": database.namespace, "key": key, "value": value, "ttl": ttl}
    if expect == 0:
        rows = await database.run(_CREATE, parameters)
    else:
        rows = await database.run(_REPLACE, parameters | {"expect": expect})
    return rows[0][0] if rows else None


async def delete(database: Database, key: str, expect: int | None) -> bool:
    """Whether a living value was removed."""
    rows = await database.run(_DELETE, {"namespace": database.namespace, "key": key, "expect": expect})
    return bool(rows and rows[0][0])


async def scan(database: Database, prefix: str) -> list[StateEntry]:
    """Everything that begins with ``prefix``, in the order of keys."""
    parameters = {"namespace": database.namespace, "prefix": prefix}
    end = _after(prefix)
    if end is None:
        rows = await database.run(_SCAN, parameters)
    else:
        rows = await database.run(_SCAN_BELOW, parameters | {"end": end})
    return [StateEntry(key, value, version) for key, value, version in rows]


def _after(prefix: str) -> str | None:
    """The least text after all that begin with ``prefix``, where that is simple to say."""
    if not prefix or not prefix[-1].isascii():
        return None
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)
