"""What ``stem doctor redis://...`` says: the server, whether it may lose messages, and what Stem keeps there."""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

from redis import exceptions as driver

from stem_core.ports.specs import AdapterOptions
from stem_redis.connection import Server
from stem_redis.keys import KINDS, Keys

__all__ = ["Finding", "report"]

_SCAN: Final = 1000
#: Keys looked at before the count is given as "at least".
_MOST_KEYS: Final = 100_000
_EVERY_SECOND: Final = "everysec"
_STREAM: Final = re.compile(r"s\d")


class Finding(NamedTuple):
    """One line of a report; ``warning`` is None, or what is wrong and what to do."""

    section: str
    key: str
    value: str
    warning: str | None = None


async def report(url: str, options: AdapterOptions) -> list[Finding]:
    """Everything worth knowing of the server behind ``url``.

    :raises AdapterError: it cannot be reached.
    """
    server = Server(url, options)
    await server.open()
    try:
        info = _facts(await server.command("INFO"))
        config = await _config(server)
        return [
            *_server(server, info),
            *_memory(info, config),
            *_persistence(info, config),
            *await _keys(server, Keys(options.namespace)),
        ]
    finally:
        await server.close()


def _facts(info: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in info.decode().splitlines())
    return {name: value for name, colon, value in lines if colon}


async def _config(server: Server) -> dict[str, str] | None:
    """The settings that matter; None where this user may not read them."""
    names = ("maxmemory-policy", "maxmemory", "appendonly", "appendfsync", "save")
    answers = await server.commands([("CONFIG", "GET", name) for name in names])
    if any(isinstance(answer, driver.ResponseError) for answer in answers):
        return None
    return {name: answer[1].decode() for name, answer in zip(names, answers, strict=True) if answer}


def _server(server: Server, info: dict[str, str]) -> list[Finding]:
    valkey = info.get("valkey_version")
    version = f"Valkey {valkey}" if valkey else f"Redis {info.get('redis_version', 'unknown')}"
    role = info.get("role", "unknown")
    replica = "this is a read-only replica: nothing can be published here; use the primary's address"
    return [
        Finding("server", "url", server.masked),
        Finding("server", "version", version),
        Finding("server", "role", role, None if role == "master" else replica),
        Finding("server", "replicas", info.get("connected_slaves", "0")),
        Finding("server", "clients", info.get("connected_clients", "unknown")),
        Finding("server", "uptime", f"{info.get('uptime_in_seconds', '?')} s"),
    ]


def _memory(info: dict[str, str], config: dict[str, str] | None) -> list[Finding]:
    used, most = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    policy = info.get("maxmemory_policy") or (config or {}).get("maxmemory-policy", "unknown")
    limit = f"{most:,} bytes" if most else "none"
    no_limit = "without maxmemory the machine's memory is the limit, and reaching it kills the server"
    evicts = (
        f"{policy} may evict messages, results and locks when memory is short: "
        "CONFIG SET maxmemory-policy noeviction"
    )
    full = f"{used / most:.0%} used: publishes are refused at 100 %" if most and used > 0.8 * most else None
    return [
        Finding("memory", "used", f"{used:,} bytes", full),
        Finding("memory", "maxmemory", limit, None if most else no_limit),
        Finding("memory", "policy", policy, None if policy in {"noeviction", "unknown"} else evicts),
    ]


def _persistence(info: dict[str, str], config: dict[str, str] | None) -> list[Finding]:
    append_only = info.get("aof_enabled") == "1"
    off = (
        "without the append-only file a crash of the server loses what was acknowledged since the last "
        "snapshot: CONFIG SET appendonly yes"
    )
    found = [
        Finding(
            "persistence", "append-only file", "on" if append_only else "off", None if append_only else off
        )
    ]
    if config is None:
        return [*found, Finding("persistence", "settings", "this user may not read them (CONFIG GET)")]
    if append_only:
        fsync = config.get("appendfsync", "unknown")
        never = "the operating system decides when to write: a power cut may lose half a minute or more"
        value = (
            f"{fsync} (a power cut, or a kill during a sync, may lose the last 2 s)"
            if fsync == _EVERY_SECOND
            else fsync
        )
        found.append(Finding("persistence", "appendfsync", value, never if fsync == "no" else None))
    found.append(Finding("persistence", "snapshots", config.get("save") or "none"))
    failed = (
        info.get("aof_last_write_status", "ok") != "ok" or info.get("rdb_last_bgsave_status", "ok") != "ok"
    )
    if failed:
        found.append(
            Finding("persistence", "last write", "failed", "the server cannot save: look at its log")
        )
    return found


async def _keys(server: Server, keys: Keys) -> list[Finding]:
    """How many keys of each kind there are in the namespace; :mod:`stem_redis.keys` documents them all."""
    counts: dict[str, int] = {}
    looked = 0
    backend, broker = keys.everything()
    for pattern, before, kind in ((broker, "}:", "R:"), (backend, keys.prefix, "N:")):
        cursor: Any = b"0"
        while cursor is not None and looked < _MOST_KEYS:
            cursor, some = await server.command("SCAN", cursor, "MATCH", pattern, "COUNT", _SCAN)
            for key in some:
                name = key.decode(errors="replace").partition(before)[2].partition(":")[0]
                label = kind + ("s0..9" if _STREAM.fullmatch(name) else name)
                counts[label] = counts.get(label, 0) + 1
            looked += len(some)
            cursor = None if cursor == b"0" else cursor
    more = "at least " if looked >= _MOST_KEYS else ""
    return [
        Finding("keys", "R", f"{broker.removesuffix('*')}QUEUE}}"),
        Finding("keys", "N", keys.prefix.removesuffix(":")),
        *(
            Finding("keys", label, f"{more}{n:,}  {KINDS.get(label, 'not one of ours')}")
            for label, n in sorted(counts.items())
        ),
    ]
