"""Groups: a hash each, its members counted once by script."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from stem_core.ports.backend import Callback, GroupAnswer, GroupOutcome, GroupRecord, Outcome
from stem_redis.connection import Server
from stem_redis.keys import Keys
from stem_redis.wire import INFO, life, message_row, outcome_row, pack_rows, status_row

__all__ = ["Groups"]


class _Definition(msgspec.Struct, frozen=True):
    """What a group was created with; kept in field ``d``."""

    members: tuple[str, ...]
    callback: tuple[Callback, ...]
    deadline: datetime | None


_DEFINITION: Final = msgspec.msgpack.Decoder(_Definition)


class Groups:
    """The groups of one backend."""

    def __init__(self, server: Server, keys: Keys) -> None:
        self._server = server
        self._keys = keys

    async def create(
        self,
        id: str,
        members: Sequence[str],
        callback: Sequence[Callback],
        deadline: datetime | None,
        ttl: float,
    ) -> bool:
        definition = pack_rows(_Definition(tuple(members), tuple(callback), deadline))
        parts: list[bytes] = []
        rows = []
        for each in callback:
            message = message_row(0, each.message, parts)
            first = len(parts)
            status = status_row(each.queued, parts)
            size = sum(map(len, parts[first:]))
            rows.append((self._keys.root(each.message.queue), message, status, size))
        packed = pack_rows(list(members)), pack_rows(rows), b"".join(parts)
        made = await self._server.run(
            "group_create", (), self._keys.prefix, id, life(ttl), definition, *packed
        )
        return bool(made)

    async def add(self, id: str, member: str, outcome: Outcome) -> GroupAnswer:
        parts: list[bytes] = []
        row = pack_rows(outcome_row(GroupOutcome(id, member, outcome), parts))
        left, complete = await self._server.run("group_add", (), self._keys.prefix, row, b"".join(parts))
        return GroupAnswer(left, bool(complete))

    async def close(self, id: str, reason: str) -> GroupAnswer:
        left, complete = await self._server.run("group_close", (), self._keys.prefix, id, reason)
        return GroupAnswer(left, bool(complete))

    async def get(self, id: str, *, outcomes: bool) -> GroupRecord | None:
        flat = await self._server.run("group_get", (), self._keys.prefix, id, int(outcomes))
        if not flat:
            return None
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        definition = _DEFINITION.decode(fields[b"d"])
        ended = {}
        for member in definition.members:
            packed = fields[b"m:" + member.encode()]
            if packed:
                info = INFO.decode(packed)
                payload = fields.get(b"p:" + member.encode())
                ended[member] = Outcome(info.state, payload, info.encoder, info.error)
        by, closed = fields.get(b"b"), fields.get(b"x")
        return GroupRecord(
            id=id,
            members=definition.members,
            callback=definition.callback,
            outcomes=ended,
            completed_by=None if by is None else by.decode(),
            closed=None if closed is None else closed.decode(),
            deadline=definition.deadline,
        )
