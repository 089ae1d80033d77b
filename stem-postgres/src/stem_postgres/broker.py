"""The broker: one live table, claimed in batches with SKIP LOCKED, settled by fenced receipts."""

# ruff: noqa: S608 - statements are put together from constants of ours; values travel as parameters

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final

import psycopg
from psycopg.rows import TupleRow

from stem_core.envelope import DeadPage, Delivery, Message, Receipt, Settlement
from stem_core.errors import AdapterError, PublishError
from stem_core.ports.backend import Backend
from stem_core.ports.broker import QueueStats
from stem_core.ports.capabilities import BrokerCapabilities
from stem_core.ports.committer import Committer, Step
from stem_core.ports.specs import AdapterOptions
from stem_postgres import dead_letters, messages, transactional
from stem_postgres.arrays import Texts
from stem_postgres.arrivals import Arrivals
from stem_postgres.backend import PostgresBackend
from stem_postgres.broadcasts import Broadcasts
from stem_postgres.committer import PostgresCommitter
from stem_postgres.connection import Database, is_lost
from stem_postgres.doorbell import Doorbell
from stem_postgres.identity import Identity, prepare
from stem_postgres.janitor import Janitor
from stem_postgres.listener import Listener, channel_of
from stem_postgres.messages import parse_receipt
from stem_postgres.steps import Scope

__all__ = ["PostgresBroker"]

#: Longest sleep of an idle receive while notifications arrive (what it can miss: a commit of the caller's own whose
#: process could not ring afterwards), and the range of it while they do not.
_POLL_LISTENING: Final = 2.0
_FIRST_POLL: Final = 0.05
_LONGEST_POLL: Final = 1.0
_LONGEST_REST: Final = 0.02
#: When to look for what a caller's transaction, whose commit nobody announces, may have brought.
_AFTER_COMMIT: Final = (0.02, 0.1, 0.4)

_STATS: Final = """select
    count(*) filter (where state = 0 and due <= statement_timestamp()
                     and (lease_until is null or lease_until <= statement_timestamp())),
    count(*) filter (where state = 0 and due > statement_timestamp()),
    count(*) filter (where state = 0 and lease_until > statement_timestamp()),
    count(*) filter (where state = 2),
    extract(epoch from statement_timestamp() - min(due) filter (
        where state = 0 and due <= statement_timestamp()
          and (lease_until is null or lease_until <= statement_timestamp())))::double precision
from {s}.message
where namespace = %(namespace)s and queue = %(queue)s and state in (0, 2)"""

# Ready and scheduled; a `once` id stays known for its time.
_PICKED_WAITING: Final = """picked as materialized (
    select seq, id, once from {s}.message
    where namespace = %(namespace)s and state = 0 and (lease_until is null or lease_until <= statement_timestamp())
      and %(where)s
    order by seq for update
), gone as (
    delete from {s}.message where seq = any (array(select seq from picked where not once))
), remembered as (
    update {s}.message
    set state = 3, lease_until = null, sealed = '',
        due = statement_timestamp() + make_interval(secs => %(once_ttl)s)
    where seq = any (array(select seq from picked where once))
)"""
_PURGE: Final = (
    f"with {_PICKED_WAITING.replace('%(where)s', 'queue = %(queue)s')} select count(*) from picked"
)
_WITHDRAW: Final = (
    f"with {_PICKED_WAITING.replace('%(where)s', 'id = any (%(ids)s)')} select distinct id from picked"
)


class PostgresBroker:
    """Implements ``stem_core.ports.broker.Broker``. Used from the event loop that opened it."""

    def __init__(self, url: str, options: AdapterOptions, capabilities: BrokerCapabilities) -> None:
        self.capabilities = capabilities
        self.database = Database(url, options)
        self.scope = Scope(options.namespace, options.once_ttl)
        self.identity: Identity | None = None
        self._options = options
        self._arrivals = Arrivals()
        self._broadcasts = Broadcasts(self.database)
        channel = channel_of(self.database, "q")
        self._listener = Listener(self.database, channel, self._heard, self._arrivals.all)
        self._doorbell = Doorbell(self.database, channel, _LONGEST_REST)
        self._janitor = Janitor(self.database, (messages.PRUNE,))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turn = 0
        self._pause = _FIRST_POLL

    async def open(self) -> None:
        """Connect, and migrate the schema when it is missing or old.

        :raises AdapterError: unreachable within ``connect_timeout``.
        :raises ConfigurationError: the schema is missing or old and may not be changed from here.
        """
        self.identity = await self.database.open(partial(prepare, self.database))
        self._loop = asyncio.get_running_loop()
        self._janitor.start()

    @property
    def server_version(self) -> str | None:
        """As "postgresql 18.0"; None before it was open."""
        return self.database.server_version

    async def close(self) -> None:
        """Release everything; again is fine. Receives that wait end with an error."""
        if self.database.closed:
            return
        await self._doorbell.close()
        await self._broadcasts.close()
        await self._listener.close()
        await self._janitor.close()
        await self.database.close()
        self._arrivals.all()

    @property
    def listening(self) -> bool:
        """Whether announcements arrive now; while not, idle receives look more often."""
        return self._listener.live

    # publish

    async def publish(self, messages_given: Sequence[Message]) -> list[bool]:
        """Store all in one statement; False for an id this queue already knows."""
        given = list(messages_given)
        if not given:
            return []
        messages.check(given, self.capabilities)
        firsts = {(each.queue, each.id): position for position, each in reversed(list(enumerate(given)))}
        positions = sorted(firsts.values())
        plain, columns = messages.publish_columns([given[position] for position in positions])
        try:
            rows = await self.database.run(
                messages.publish(plain), {"namespace": self.scope.namespace} | columns
            )
        except AdapterError as error:
            cause = error.__cause__
            lost = isinstance(cause, psycopg.Error) and is_lost(cause) and not _never_sent(cause)
            raise PublishError(str(error), outcome="unknown" if lost else "refused") from error
        accepted = set(rows)
        answers = [False] * len(given)
        for position in positions:
            answers[position] = (given[position].queue, given[position].id) in accepted
        self.announce({queue for queue, _ in accepted})
        return answers

    def announce(self, queues: Iterable[str]) -> None:
        """Wake whoever waits for these queues, here and in other processes."""
        self._arrivals.ring(queues)
        self._doorbell.ring(queues)

    def announce_all(self) -> None:
        """Wake whoever waits for any queue."""
        self._arrivals.all()
        self._doorbell.ring([""])

    # receive and settle

    async def receive(
        self, queues: Sequence[str], *, limit: int, lease: float, wait: float
    ) -> list[Delivery]:
        """Claim a batch; when there is none, sleep until something is announced or due."""
        if not queues or limit < 1:
            return []
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        if wait > 0:
            self._listener.start()
        with self._arrivals.watch(queues) as bell:
            while True:
                bell.clear()
                deliveries, until_next = await self._claim(queues, limit, lease)
                if deliveries:
                    self._pause = _FIRST_POLL
                    return deliveries
                left = deadline - loop.time()
                if left <= 0:
                    return []
                nap = min(self._nap(), max(until_next, 0.001))
                await _rung(bell, min(nap, left))
                if left <= nap and not bell.is_set():
                    return []

    def _nap(self) -> float:
        if self._listener.live:
            return _POLL_LISTENING
        self._pause = min(self._pause * 1.5, _LONGEST_POLL)
        return self._pause

    async def _claim(self, queues: Sequence[str], limit: int, lease: float) -> tuple[list[Delivery], float]:
        self._turn += 1
        rows = await self.database.run(
            messages.CLAIM,
            {
                "namespace": self.scope.namespace,
                "limit": limit,
                "lease": lease,
                **messages.claim_columns(queues, self._turn),
            },
        )
        if rows and rows[0][0] is None:
            until_next = rows[0][-1]
            return [], math.inf if until_next is None else until_next
        rows.sort(key=_hand_out_order)
        return [messages.delivery_of(row) for row in rows], 0.0

    async def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        """Settle a batch in one statement; False for a receipt that no longer holds."""
        if not settlements:
            return []
        firsts = {each.receipt: position for position, each in reversed(list(enumerate(settlements)))}
        positions = sorted(firsts.values())
        chosen = [settlements[position] for position in positions]
        plain, columns = messages.settle_columns(chosen, self.scope.once_ttl)
        rows = await self.database.run(messages.settle(plain), columns)
        held = {(seq, token) for seq, token, _ in rows}
        answers = [False] * len(settlements)
        for position in positions:
            answers[position] = parse_receipt(settlements[position].receipt) in held
        self.announce({queue for _, _, queue in rows if queue is not None})
        return answers

    async def extend(self, receipts: Sequence[Receipt], lease: float) -> list[bool]:
        """Move every deadline in one statement; False for a lost lease."""
        if not receipts:
            return []
        pairs = sorted({parse_receipt(receipt) for receipt in receipts})
        rows = await self.database.run(messages.EXTEND, {"lease": lease} | messages.receipt_columns(pairs))
        held = set(rows)
        return [parse_receipt(receipt) in held for receipt in receipts]

    # what people look at and do

    async def stats(self, queue: str) -> QueueStats:
        """Counts of one queue, in one statement."""
        rows = await self.database.run(_STATS, {"namespace": self.scope.namespace, "queue": queue})
        ready, scheduled, leased, dead, age = rows[0]
        return QueueStats(ready=ready, scheduled=scheduled, leased=leased, dead=dead, oldest_ready_age=age)

    async def purge(self, queue: str) -> int:
        """Remove what is ready or scheduled."""
        rows = await self.database.run(_PURGE, self._scoped(queue=queue, once_ttl=self.scope.once_ttl))
        count: int = rows[0][0]
        return count

    async def withdraw(self, ids: Sequence[str]) -> list[bool]:
        """Remove what is ready or scheduled by id, in any queue."""
        rows = await self.database.run(
            _WITHDRAW, self._scoped(ids=Texts(sorted(set(ids))), once_ttl=self.scope.once_ttl)
        )
        gone = {row[0] for row in rows}
        return [id in gone for id in ids]

    async def dead_list(
        self,
        queue: str,
        *,
        ids: Sequence[str] | None = None,
        reason: str | None = None,
        before: datetime | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> DeadPage:
        """Dead letters, oldest first."""
        chosen = dead_letters.Filter(queue, ids, reason, before)
        return await dead_letters.page(self.database, self.scope, chosen, limit, cursor)

    async def dead_replay(
        self,
        queue: str,
        *,
        ids: Sequence[str] | None = None,
        reason: str | None = None,
        before: datetime | None = None,
        limit: int | None = None,
        dry_run: bool = False,
    ) -> list[tuple[str, int]]:
        """Make dead letters ready again, as the next generation."""
        chosen = dead_letters.Filter(queue, ids, reason, before)
        done = await dead_letters.replay(self.database, self.scope, chosen, limit, dry_run)
        if done and not dry_run:
            self.announce([queue])
        return done

    async def dead_purge(
        self,
        queue: str,
        *,
        ids: Sequence[str] | None = None,
        reason: str | None = None,
        before: datetime | None = None,
        limit: int | None = None,
        keep: int = 0,
    ) -> int:
        """Remove dead letters, oldest first."""
        chosen = dead_letters.Filter(queue, ids, reason, before)
        return await dead_letters.purge(self.database, self.scope, chosen, limit, keep)

    async def broadcast(self, channel: str, data: bytes) -> None:
        """Send ``data`` to every current subscriber."""
        await self._broadcasts.send(channel, data)

    def subscribe(self, channels: Sequence[str]) -> AsyncIterator[tuple[str, bytes]]:
        """(channel, data) of what is broadcast from the first ``__anext__`` on."""
        return self._broadcasts.subscribe(channels)

    # one store

    def join(self, backend: Backend) -> Committer | None:
        """A committer when ``backend`` keeps its rows in the same schema and namespace of the same server."""
        if not isinstance(backend, PostgresBackend) or self.identity is None:
            return None
        return PostgresCommitter(self, backend) if backend.identity == self.identity else None

    async def commit_on(self, conn: Any, steps: Sequence[Step]) -> list[bool]:
        """Do ``steps`` in the caller's transaction on a psycopg or SQLAlchemy async connection; never commits.

        :raises ConfigurationError: not such a connection, or it has no transaction to be part of.
        """
        self._check(steps)
        answers = await transactional.run_async(conn, steps, self.scope, self.database)
        self._expect(steps)
        return answers

    def commit_on_sync(self, conn: Any, steps: Sequence[Step]) -> list[bool]:
        """The same on a sync connection, on the caller's thread.

        :raises ConfigurationError: as :meth:`commit_on`.
        """
        self._check(steps)
        answers = transactional.run_sync(conn, steps, self.scope, self.database)
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it was closed: nobody here has to be woken
                self._loop.call_soon_threadsafe(self._expect, steps)
        return answers

    def _check(self, steps: Sequence[Step]) -> None:
        messages.check((message for step in steps for message in step.publishes), self.capabilities)

    def _expect(self, steps: Sequence[Step]) -> None:
        if self.database.closed:
            return
        queues = {message.queue for step in steps for message in step.publishes}
        if queues:
            self._doorbell.ring_after(_AFTER_COMMIT, queues)

    def _heard(self, payload: str) -> None:
        names = payload.split("\n")
        if "" in names:
            self._arrivals.all()
        else:
            self._arrivals.ring(names)

    def _scoped(self, **parameters: Any) -> dict[str, Any]:
        return {"namespace": self.scope.namespace, **parameters}


async def _rung(bell: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await bell.wait()


def _hand_out_order(row: TupleRow) -> tuple[int, datetime, int]:
    """(level, due, seq): the order of the claim, which RETURNING does not keep."""
    return -row[4], row[12], row[0]


def _never_sent(error: psycopg.Error) -> bool:
    """The pool had no connection to give, so nothing was sent."""
    return type(error).__name__ == "PoolTimeout"
