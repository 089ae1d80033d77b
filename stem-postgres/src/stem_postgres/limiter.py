"""Rate limits: the generic cell rate algorithm (ITU-T I.371) in one statement, on the server's clock.

A bucket keeps one number, the theoretical arrival time: when it would be full again. ``clock_timestamp()`` is read
after the row's lock was granted, so that contenders who waited are not given the time at which they came.
"""

# ruff: noqa: S608 - statements are put together from constants of ours; values travel as parameters

from __future__ import annotations

from typing import Final

from stem_core.ports.backend import LimitAnswer
from stem_postgres.connection import Database

__all__ = ["PRUNE", "take"]

_NOW: Final = "extract(epoch from clock_timestamp())::double precision"

_TAKE: Final = f"""with taken as (
    insert into {{s}}.bucket as b (namespace, key, tat)
    values (%(namespace)s, %(key)s, {_NOW} + %(cost)s)
    on conflict (namespace, key) do update
    set tat = greatest(b.tat, {_NOW}) + %(cost)s
    where greatest(b.tat, {_NOW}) + %(cost)s - {_NOW} <= %(depth)s
    returning tat)
select true, 0::double precision from taken
union all
select false, greatest(b.tat + %(cost)s - %(depth)s - {_NOW}, 0.001)
from (select 1) as one
left join {{s}}.bucket b on b.namespace = %(namespace)s and b.key = %(key)s
where not exists (select from taken)"""

#: A bucket that is full again is as good as none.
PRUNE: Final = f"""delete from {{s}}.bucket
where (namespace, key) in (
    select namespace, key from {{s}}.bucket where tat < {_NOW} - 60 limit 1000 for update skip locked)
returning 1"""


async def take(database: Database, key: str, permits: int, rate: float, burst: int) -> LimitAnswer:
    """Take ``permits`` or none."""
    rows = await database.run(
        _TAKE,
        {
            "namespace": database.namespace,
            "key": key,
            "cost": permits / rate,
            "depth": burst / rate,
        },
    )
    granted, after = rows[0]
    return LimitAnswer(granted, after or 0.0)
