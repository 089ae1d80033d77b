"""What a soak looks at in each store: how large it is, and what is left in it at rest."""

from __future__ import annotations

import re
import sqlite3
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import psycopg
import redis.asyncio

from stem_redis.keys import KINDS
from tests.servers import PostgresServer, Server, ValkeyServer

__all__ = ["STORES", "Left", "Store"]


@dataclass(frozen=True)
class Left:
    """What is left of one kind; ``kept`` of it has no end of life, ``bytes`` where the store can tell."""

    kind: str
    count: int
    kept: int
    bytes: int = 0
    documented: bool = True


class Store(ABC):
    """A store of one soak, started when no URL is given."""

    kind: ClassVar[str]
    #: Sizes that must come back to where they began, and those that must stay flat from the third tenth on.
    returns: ClassVar[tuple[str, ...]] = ()
    flat: ClassVar[tuple[str, ...]] = ()
    #: What must be gone soon after it has expired; None where it goes with the next write.
    pruned: ClassVar[str | None] = None
    #: Seconds a result lives.
    ttl: ClassVar[float] = 10.0
    #: Whether a claim takes the store's time rather than the worker's own.
    claims: ClassVar[bool] = True

    url: str

    @abstractmethod
    async def sizes(self) -> Mapping[str, int]:
        """Bytes of each part, now."""

    @abstractmethod
    async def left(self, namespace: str) -> list[Left]:
        """What the namespace still holds."""

    async def remove(self, namespace: str) -> None:
        """Remove what a soak left in a server that was here before."""
        del namespace

    async def close(self) -> None:
        """Stop what was started."""
        return


class MemoryStore(Store):
    """A store that is the worker process itself: its size is the worker's."""

    kind = "memory"
    url = "memory://"
    ttl = 1.0  # what is kept is in the memory that is judged
    claims = False

    async def sizes(self) -> Mapping[str, int]:
        return {}

    async def left(self, namespace: str) -> list[Left]:
        del namespace
        return []


class SqliteStore(Store):
    """A file in a temporary directory.

    An expired status keeps its place for up to ten minutes more, so the file grows with a run that is shorter.
    """

    kind = "sqlite"
    flat = ("write-ahead log",)

    def __init__(self, url: str | None) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._path = Path(url.removeprefix("sqlite:///")) if url else Path(self._folder.name, "soak.db")
        self.url = f"sqlite:///{self._path}"

    async def sizes(self) -> Mapping[str, int]:
        log = self._path.with_name(f"{self._path.name}-wal")
        return {"file": _size(self._path), "write-ahead log": _size(log)}

    async def left(self, namespace: str) -> list[Left]:
        del namespace  # the file is ours alone
        connection = sqlite3.connect(f"file:{self._path}?mode=ro", uri=True)
        try:
            found = []
            for table, endless in (
                ("messages", "true"),
                ("statuses", "expires is null"),
                ("state", "expires is null"),
                ("groups", "expires is null"),
            ):
                count, kept = (
                    int(connection.execute(f"select count(*) from {table} where {which}").fetchone()[0])
                    for which in ("true", endless)
                )
                if count:
                    found.append(Left(table, count, kept))
            return found
        finally:
            connection.close()

    async def close(self) -> None:
        self._folder.cleanup()


class RedisStore(Store):
    """Redis or Valkey."""

    kind = "redis"
    returns = ("used_memory",)
    pruned = "N:t"

    def __init__(self, url: str | None) -> None:
        self._server = _started(ValkeyServer, url)
        self.url = url or self._server.url  # type: ignore[union-attr]
        self._client = redis.asyncio.Redis.from_url(self.url)

    async def sizes(self) -> Mapping[str, int]:
        return {"used_memory": int((await self._client.info("memory"))["used_memory"])}

    async def left(self, namespace: str) -> list[Left]:
        found: dict[str, list[tuple[int, int]]] = {}
        for key in await self._keys(namespace):
            lives, size = await self._client.pttl(key), await self._client.memory_usage(key, samples=0)
            found.setdefault(_kind(key.decode(), namespace), []).append((lives, size or 0))
        return [
            Left(
                kind,
                len(keys),
                sum(lives == -1 for lives, _ in keys),
                sum(size for _, size in keys),
                documented=kind in KINDS,
            )
            for kind, keys in sorted(found.items())
        ]

    async def remove(self, namespace: str) -> None:
        for key in await self._keys(namespace):
            await self._client.unlink(key)

    async def close(self) -> None:
        await self._client.aclose()
        if self._server:
            self._server.close()

    async def _keys(self, namespace: str) -> list[bytes]:
        patterns = (f"stem:{namespace}:*", f"stem:{{{namespace}:*")
        return [key for each in patterns async for key in self._client.scan_iter(each, count=5000)]


class PostgresStore(Store):
    """PostgreSQL, in a schema of the soak's own.

    Its autovacuum looks every 10 s instead of once a minute: a million messages are through in two. Expired statuses
    are pruned about once a minute, too seldom for their size to be steady in a run.
    """

    kind = "postgres"
    flat = ("message table", "message indexes")
    pruned = "status"
    _SCHEMA = "stem_soak"

    def __init__(self, url: str | None) -> None:
        self._server = _started(PostgresServer, url, autovacuum_naptime="10")
        self._plain = url or self._server.url  # type: ignore[union-attr]
        self.url = f"{self._plain}{'&' if '?' in self._plain else '?'}schema={self._SCHEMA}"

    async def sizes(self) -> Mapping[str, int]:
        rows = await self._rows(
            "select c.relname, pg_table_size(c.oid), pg_indexes_size(c.oid) from pg_class c "
            "join pg_namespace n on n.oid = c.relnamespace "
            "where n.nspname = %s and c.relname in ('message', 'status') order by 1"
        )
        return {
            f"{name} {part}": size
            for name, table, indexes in rows
            for part, size in (("table", table), ("indexes", indexes))
        }

    async def left(self, namespace: str) -> list[Left]:
        del namespace  # the schema is ours alone
        found = []
        for table, ends in (
            ("message", "state = 3"),
            ("status", "true"),  # expires_at is never null
            ("state", "expires_at < 'infinity'"),
            ("task_group", "true"),
            ("broadcast", "true"),
        ):
            ((count, ending),) = await self._rows(
                f"select count(*), count(*) filter (where {ends}) from {self._SCHEMA}.{table} where %s <> ''"
            )
            if count:
                found.append(Left(table, count, count - ending))
        return found

    async def remove(self, namespace: str) -> None:
        del namespace
        async with await psycopg.AsyncConnection.connect(self._plain, autocommit=True) as connection:
            await connection.execute(f"drop schema if exists {self._SCHEMA} cascade")

    async def close(self) -> None:
        if self._server:
            self._server.close()

    async def _rows(self, statement: str) -> list[tuple[Any, ...]]:
        async with await psycopg.AsyncConnection.connect(self._plain, autocommit=True) as connection:
            return await (await connection.execute(statement.encode(), [self._SCHEMA])).fetchall()


STORES: dict[str, type[Store]] = {
    each.kind: each for each in (MemoryStore, SqliteStore, RedisStore, PostgresStore)
}


def _started(kind: type[Server], url: str | None, **config: str) -> Server | None:
    return None if url else kind(**config).start()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _kind(key: str, namespace: str) -> str:
    """``stem:{NS:Q}:s5`` -> ``R:s0..9``, ``stem:NS:t:ID`` -> ``N:t``: as stem_redis.keys names them."""
    if key.startswith("stem:{"):
        short = key.partition("}:")[2].partition(":")[0]
        return f"R:{'s0..9' if re.fullmatch('s[0-9]', short) else short}"
    return f"N:{key.removeprefix(f'stem:{namespace}:').partition(':')[0]}"
