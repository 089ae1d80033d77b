"""Dead letters of a queue: one stream, oldest first; looked through here, changed by scripts."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from stem_core.envelope import DeadMessage, DeadPage, Message
from stem_redis.connection import Server
from stem_redis.keys import Keys
from stem_redis.wire import instant_of, pack_rows

__all__ = ["DeadFilter", "DeadLetters"]

_PAGE: Final = 200


class DeadFilter(msgspec.Struct, frozen=True):
    """Which dead letters: those that match everything given."""

    ids: Sequence[str] | None = None
    reason: str | None = None
    before: datetime | None = None

    def matches(self, dead: DeadMessage) -> bool:
        return (self.ids is None or dead.message.id in self.ids) and (
            self.reason is None or dead.reason == self.reason
        )


class DeadLetters:
    """The dead letters of a broker's queues."""

    def __init__(self, server: Server, keys: Keys, once_ttl: int) -> None:
        self._server = server
        self._keys = keys
        self._once_ttl = once_ttl

    async def page(self, queue: str, which: DeadFilter, limit: int, cursor: str | None) -> DeadPage:
        found: list[tuple[str, DeadMessage]] = []
        async for entry, dead in self._scan(queue, which, after=cursor):
            found.append((entry, dead))
            if len(found) > limit:
                break
        items = tuple(dead for _, dead in found[:limit])
        return DeadPage(items, found[limit - 1][0] if len(found) > limit else None)

    async def replay(
        self, queue: str, which: DeadFilter, limit: int | None, *, dry_run: bool
    ) -> list[tuple[str, int]]:
        found = [
            (entry, dead.message.id, dead.generation + 1)
            async for entry, dead in self._scan(queue, which, most=limit)
        ]
        if dry_run:
            return [(id, generation) for _, id, generation in found]
        replayed = []
        for some in _chunks(found):
            rows = [(entry, id) for entry, id, _ in some]
            generations = await self._server.run("dead_replay", [self._keys.root(queue)], pack_rows(rows))
            replayed += [
                (id, generation)
                for (_, id), generation in zip(rows, generations, strict=True)
                if generation > 0
            ]
        return replayed

    async def purge(self, queue: str, which: DeadFilter, limit: int | None, keep: int) -> int:
        found = [(entry, dead.message.id) async for entry, dead in self._scan(queue, which)]
        doomed = found[: max(0, len(found) - keep)][:limit]
        removed = 0
        for rows in _chunks(doomed):
            removed += await self._server.run(
                "dead_purge", [self._keys.root(queue)], self._once_ttl, pack_rows(rows)
            )
        return removed

    async def _scan(
        self, queue: str, which: DeadFilter, *, after: str | None = None, most: int | None = None
    ) -> AsyncIterator[tuple[str, DeadMessage]]:
        """(entry, dead letter) of what matches, oldest first, of those there are now."""
        key = f"{self._keys.root(queue)}:x"
        last = await self._server.command("XREVRANGE", key, "+", "-", "COUNT", 1)
        if not last or most == 0:
            return
        end = last[0][0].decode()
        if which.before is not None:
            bound = math.ceil(which.before.timestamp() * 1000) - 1
            end = end if int(end.partition("-")[0]) <= bound else str(bound)
        given = 0
        while True:
            start = "-" if after is None else f"({after}"
            entries = await self._server.command("XRANGE", key, start, end, "COUNT", _PAGE)
            for entry, flat in entries:
                after = entry.decode()
                dead = _dead_message(queue, after, flat)
                if which.matches(dead):
                    yield after, dead
                    given += 1
                    if given == most:
                        return
            if len(entries) < _PAGE:
                return


def _dead_message(queue: str, entry: str, flat: Sequence[bytes]) -> DeadMessage:
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    generation, attempt, _, once = map(int, fields[b"c"].split())
    return DeadMessage(
        message=Message(
            id=fields[b"i"].decode(),
            queue=queue,
            sealed=fields[b"e"],
            priority=int(fields[b"l"]),
            once=bool(once),
        ),
        reason=fields[b"r"].decode(),
        detail=fields[b"t"].decode(),
        dead_at=instant_of(int(entry.partition("-")[0])),
        generation=generation,
        attempt=attempt,
    )


def _chunks(rows: Sequence[Any]) -> list[Sequence[Any]]:
    return [rows[at : at + _PAGE] for at in range(0, len(rows), _PAGE)]
