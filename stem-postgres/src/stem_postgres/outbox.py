"""The outbox: messages for another broker, written where the application's own rows are written.

The caller's commit puts them in ``{schema}.outbox``; a relay locks some (SKIP LOCKED, so several relays share the
work), publishes them marked ``once``, and deletes them when the broker has confirmed. A relay that dies in between
leaves them locked by nobody: the next one publishes again, and the broker already knows the ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC
from functools import partial
from typing import Any, Final

import msgspec
import psycopg
from psycopg.rows import TupleRow

from stem_core.envelope import Message
from stem_core.errors import PayloadTooLarge, UnsupportedCapability
from stem_core.ports.broker import Broker
from stem_core.ports.specs import AdapterOptions
from stem_postgres import transactional
from stem_postgres.arrays import Bigints, Blobs, Floats, Instants, Smallints, Texts
from stem_postgres.connection import Database, Flow, Query, drive, drive_sync
from stem_postgres.identity import prepare

__all__ = ["PostgresOutbox"]

_WRITE: Final = """insert into {s}.outbox (namespace, id, queue, priority, not_before, delay, route, sealed)
select %(namespace)s, m.id, m.queue, m.priority, m.not_before, m.delay, m.route::jsonb, m.sealed
from unnest(%(id)s, %(queue)s, %(priority)s, %(not_before)s, %(delay)s, %(route)s, %(sealed)s)
     with ordinality as m (id, queue, priority, not_before, delay, route, sealed, place)
order by m.place"""

_TAKE: Final = """select seq, id, queue, priority, not_before, delay, route::text, sealed from {s}.outbox
where namespace = %(namespace)s and refused is null
order by seq limit %(limit)s
for update skip locked"""

_DELETE: Final = "delete from {s}.outbox where seq = any (%(seqs)s)"

_REFUSE: Final = "update {s}.outbox set refused = %(why)s where seq = %(seq)s"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, str]).decode
_REFUSALS: Final = (PayloadTooLarge, UnsupportedCapability, ValueError)


class PostgresOutbox:
    """Implements ``stem_core.ports.outbox.Outbox``."""

    def __init__(self, url: str, options: AdapterOptions) -> None:
        self._database = Database(url, options)
        self._namespace = options.namespace

    async def open(self) -> None:
        """Connect, and migrate the schema when it is missing or old.

        :raises AdapterError: unreachable within ``connect_timeout``.
        :raises ConfigurationError: the schema is missing or old and may not be changed from here.
        """
        await self._database.open(partial(prepare, self._database))

    async def close(self) -> None:
        """Release every connection; again is fine."""
        await self._database.close()

    async def write(self, conn: Any, messages: Sequence[Message]) -> None:
        """Store ``messages`` in the caller's transaction; never commits it.

        :raises ConfigurationError: not an async psycopg connection, or no transaction.
        """
        connection = await transactional.async_connection(conn)
        try:
            await drive(self._writing(messages), connection, self._database.statement)
        except psycopg.Error as error:
            raise self._database.failure(error) from error

    def write_sync(self, conn: Any, messages: Sequence[Message]) -> None:
        """The same on a sync connection, on the caller's thread; needs no :meth:`open`.

        :raises ConfigurationError: not a sync psycopg connection, or no transaction.
        """
        connection = transactional.sync_connection(conn)
        try:
            drive_sync(self._writing(messages), connection, self._database.statement)
        except psycopg.Error as error:
            raise self._database.failure(error) from error

    async def relay(self, broker: Broker, *, limit: int = 100) -> int:
        """Publish at most ``limit`` committed messages and remove them.

        One that the broker can never take (too large, say) stays, with the reason in ``refused``, and stops no other.

        :raises PublishError: the broker did not confirm; the messages stay.
        """
        async with self._database.transaction() as connection:
            rows = await self._fetch(connection, Query(_TAKE, {"namespace": self._namespace, "limit": limit}))
            if not rows:
                return 0
            messages = [_message(row) for row in rows]
            try:
                await broker.publish(messages)
                sent = [row[0] for row in rows]
            except _REFUSALS:  # before anything was stored; find out which
                sent = await self._one_by_one(connection, broker, rows)
            await self._fetch(connection, Query(_DELETE, {"seqs": Bigints(sent)}))
            return len(rows)

    async def _one_by_one(
        self, connection: psycopg.AsyncConnection[Any], broker: Broker, rows: Iterable[TupleRow]
    ) -> list[int]:
        sent = []
        for row in rows:
            try:
                await broker.publish([_message(row)])
            except _REFUSALS as error:
                await self._fetch(
                    connection, Query(_REFUSE, {"seq": row[0], "why": str(error).replace("\0", "")})
                )
            else:
                sent.append(row[0])
        return sent

    async def _fetch(self, connection: psycopg.AsyncConnection[Any], query: Query) -> Sequence[TupleRow]:
        return await drive(_one(query), connection, self._database.statement)

    def _writing(self, messages: Sequence[Message]) -> Flow[None]:
        yield Query(
            _WRITE,
            {
                "namespace": self._namespace,
                "id": Texts([each.id for each in messages]),
                "queue": Texts([each.queue for each in messages]),
                "priority": Smallints([each.priority for each in messages]),
                "not_before": Instants([each.not_before for each in messages]),
                "delay": Floats([each.delay for each in messages]),
                "route": Texts(
                    [_encode(dict(each.route)).decode() if each.route else None for each in messages]
                ),
                "sealed": Blobs([each.sealed for each in messages]),
            },
        )


def _one(query: Query) -> Flow[Sequence[TupleRow]]:
    return (yield query)


def _message(row: TupleRow) -> Message:
    _, id, queue, priority, not_before, delay, route, sealed = row
    return Message(
        id=id,
        queue=queue,
        sealed=sealed,
        priority=priority,
        not_before=not_before and not_before.astimezone(UTC),
        delay=delay,
        once=True,
        route={} if route is None else _decode(route),
    )
