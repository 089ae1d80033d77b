"""Shared values and limits, as functions of a transaction: laws 25 and 26."""

from __future__ import annotations

from typing import Final

from stem_core.builtin import limits
from stem_core.builtin.sqlite.unit import Unit
from stem_core.clock import instant
from stem_core.ports.backend import LimitAnswer, StateEntry, StateRead

__all__ = ["delete", "read", "scan", "take", "write"]

#: Expired rows removed for each one written, at most.
_PRUNE: Final = 10
#: After every text that begins with a prefix, in SQLite's byte order of UTF-8: no text holds this byte.
_BEYOND: Final = b"\xff"


def read(unit: Unit, ns: int, key: str) -> StateRead:
    found = unit.rows(
        "SELECT value, version FROM state WHERE ns = ? AND key = ? AND (expires IS NULL OR expires > ?)",
        (ns, key, unit.now),
    )
    value, version = found[0] if found else (None, 0)
    return StateRead(value, version, instant(unit.now))


def write(unit: Unit, ns: int, key: str, value: bytes, expect: int, ttl: float | None) -> int | None:
    if read(unit, ns, key).version != expect:
        return None
    version = unit.value("UPDATE counters SET value = value + 1 WHERE name = 'state' RETURNING value")
    expires = None if ttl is None else unit.now + ttl
    unit.execute(
        "INSERT INTO state VALUES (?, ?, ?, ?, ?) ON CONFLICT (ns, key) DO UPDATE "
        "SET version = excluded.version, expires = excluded.expires, value = excluded.value",
        (ns, key, version, expires, value),
    )
    unit.execute(
        "DELETE FROM state WHERE (ns, key) IN (SELECT ns, key FROM state WHERE expires <= ? LIMIT ?)",
        (unit.now, _PRUNE),
    )
    return int(version)


def delete(unit: Unit, ns: int, key: str, expect: int | None) -> bool:
    version = read(unit, ns, key).version
    if version == 0 or (expect is not None and version != expect):
        return False
    unit.execute("DELETE FROM state WHERE ns = ? AND key = ?", (ns, key))
    return True


def scan(unit: Unit, ns: int, prefix: str) -> list[StateEntry]:
    found = unit.rows(
        "SELECT key, value, version FROM state WHERE ns = ? AND key >= ? AND key < CAST(? AS TEXT) "
        "AND (expires IS NULL OR expires > ?) ORDER BY key",
        (ns, prefix, prefix.encode() + _BEYOND, unit.now),
    )
    return [StateEntry(key, value, version) for key, value, version in found]


def take(unit: Unit, ns: int, key: str, permits: int, rate: float, burst: int) -> LimitAnswer:
    arrival = unit.value("SELECT arrival FROM limits WHERE ns = ? AND key = ?", (ns, key))
    answer, arrival = limits.take(arrival, permits, rate, burst, unit.now)
    if arrival is not None:
        unit.execute(
            "INSERT INTO limits VALUES (?, ?, ?) ON CONFLICT (ns, key) DO UPDATE SET arrival = excluded.arrival",
            (ns, key, arrival),
        )
        unit.execute(
            "DELETE FROM limits WHERE (ns, key) IN (SELECT ns, key FROM limits WHERE arrival <= ? LIMIT ?)",
            (unit.now, _PRUNE),
        )
    return answer
