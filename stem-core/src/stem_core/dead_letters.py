"""``stem.dead_letters``: messages that were put aside, to be looked at, sent again, or thrown away."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Final

import msgspec

from stem_core.checks import check_count
from stem_core.clock import instant
from stem_core.envelope import DeadMessage, DeadPage, Envelope
from stem_core.errors import StemError
from stem_core.handles import Runs
from stem_core.options import check_name
from stem_core.ports.broker import Broker
from stem_core.publishing import queued_of
from stem_core.wiring import Wiring

__all__ = ["DeadLetters", "Filter", "Replayed"]

#: Dead letters asked of, or sent again by, the broker at once.
_PAGE: Final = 200


class Filter(msgspec.Struct, frozen=True):
    """Which dead letters of a queue: those that match everything given; ``before`` bounds ``dead_at``."""

    ids: Sequence[str] | None = None
    reason: str | None = None
    before: datetime | None = None


class Replayed(list[tuple[str, int]]):
    """(id, new generation) of each message that was sent again, or would be; and what must be known of them.

    ``expired``: ids that were refused, since their ``expires`` is over; they are still dead letters.
    ``grouped``: replayed ids that are members of a group, whose outcome stands as it was.
    """

    def __init__(self) -> None:
        super().__init__()
        self.expired: list[str] = []
        self.grouped: list[str] = []


class DeadLetters:
    """The dead letters of every queue.

    Every method raises :exc:`UnsupportedCapability` where the broker keeps none (capability ``dead_letters``).
    """

    def __init__(self, stem: Runs) -> None:
        self._stem = stem

    async def list(
        self,
        queue: str = "default",
        *,
        ids: Sequence[str] | None = None,
        reason: str | None = None,
        before: datetime | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> DeadPage:
        """Dead letters that match every filter given, oldest first."""
        which = _filter(queue, ids, reason, before)
        return await self._stem.run(lambda wiring: _page(wiring.broker, queue, which, _most(limit), cursor))

    async def show(self, queue: str, id: str) -> tuple[DeadMessage, Envelope | None] | None:
        """One dead letter and what is sealed in it; None when there is no such dead letter.

        The envelope is None when its bytes do not open here: unreadable, or not signed by a trusted key.
        """
        which = _filter(queue, [id], None, None)

        async def work(wiring: Wiring) -> tuple[DeadMessage, Envelope | None] | None:
            page = await _page(wiring.broker, queue, which, 1, None)
            return (page.items[0], _envelope(wiring, page.items[0])) if page.items else None

        return await self._stem.run(work)

    async def replay(
        self,
        queue: str = "default",
        *,
        ids: Sequence[str] | None = None,
        reason: str | None = None,
        before: datetime | None = None,
        limit: int | None = None,
        dry_run: bool = False,
    ) -> Replayed:
        """Send matching dead letters again: the same bytes as a new generation, recorded ``queued``.

        An expired message would be cancelled before it ran, so it is refused and listed in ``expired``. A member
        of a group runs alone: what was counted in its group stands.

        :param limit: how many at most; the oldest ones.
        :param dry_run: only say what would be done.
        """
        which, most = _filter(queue, ids, reason, before), None if limit is None else _most(limit)
        return await self._stem.run(lambda wiring: _replay(wiring, queue, which, most, dry_run))

    async def purge(
        self,
        queue: str = "default",
        *,
        ids: Sequence[str] | None = None,
        reason: str | None = None,
        before: datetime | None = None,
        limit: int | None = None,
        keep: int = 0,
    ) -> int:
        """Throw matching dead letters away, oldest first, but keep the newest ``keep``. Returns how many."""
        which, most = _filter(queue, ids, reason, before), None if limit is None else _most(limit)
        check_count("keep", keep, 0)
        given = msgspec.structs.asdict(which)
        return await self._stem.run(
            lambda wiring: wiring.broker.dead_purge(queue, **given, limit=most, keep=keep)
        )

    async def count(
        self,
        queue: str = "default",
        *,
        ids: Sequence[str] | None = None,
        reason: str | None = None,
        before: datetime | None = None,
    ) -> int:
        """How many match: what :meth:`purge` without ``limit`` and ``keep`` would throw away."""
        which = _filter(queue, ids, reason, before)

        async def work(wiring: Wiring) -> int:
            found = 0
            async for _ in _each(wiring.broker, queue, which):
                found += 1
            return found

        return await self._stem.run(work)


def _filter(queue: str, ids: Sequence[str] | None, reason: str | None, before: datetime | None) -> Filter:
    check_name(queue, "queue name")
    ids = (ids,) if isinstance(ids, str) else ids
    return Filter(None if ids is None else tuple(ids), reason, None if before is None else instant(before))


def _most(limit: int) -> int:
    check_count("limit", limit)
    return limit


async def _page(broker: Broker, queue: str, which: Filter, limit: int, cursor: str | None) -> DeadPage:
    try:
        return await broker.dead_list(
            queue, ids=which.ids, reason=which.reason, before=which.before, limit=limit, cursor=cursor
        )
    except (ValueError, OverflowError) as error:
        if cursor is None:
            raise
        raise ValueError(f"cursor={cursor!r} is none that a page of dead letters ended with") from error


async def _each(broker: Broker, queue: str, which: Filter) -> AsyncIterator[DeadMessage]:
    cursor = None
    while True:
        page = await _page(broker, queue, which, _PAGE, cursor)
        for each in page.items:
            yield each
        cursor = page.cursor
        if cursor is None:
            return


async def _replay(wiring: Wiring, queue: str, which: Filter, limit: int | None, dry_run: bool) -> Replayed:
    answer = Replayed()
    # What goes again is chosen before anything does: a page's cursor need not survive changes to what it counts.
    chosen: dict[str, Envelope | None] = {}
    async for dead in _each(wiring.broker, queue, which):
        if limit is not None and len(chosen) >= limit:
            break
        envelope = _envelope(wiring, dead)
        if envelope is not None and _expired(wiring, envelope):
            answer.expired.append(dead.message.id)
        else:
            # Its arguments are not needed again, and there may be a hundred thousand of them.
            chosen[dead.message.id] = envelope and msgspec.structs.replace(envelope, args=b"")
    ids = [*chosen]
    for some in (ids[start : start + _PAGE] for start in range(0, len(ids), _PAGE)):
        done = await wiring.broker.dead_replay(queue, ids=some, dry_run=dry_run)
        answer += [(id, generation) for id, generation in done]
        envelopes = [(chosen[id], generation) for id, generation in done]
        answer.grouped += [each.id for each, _ in envelopes if each is not None and each.group is not None]
        if not dry_run and wiring.backend is not None:
            # Bytes that do not open may carry the id of a task of somebody else: its row is left alone.
            rows = [queued_of(each, generation=generation) for each, generation in envelopes if each]
            await wiring.backend.record(rows)
    return answer


def _expired(wiring: Wiring, envelope: Envelope) -> bool:
    return envelope.expires is not None and envelope.expires <= instant(wiring.clock.time())


def _envelope(wiring: Wiring, dead: DeadMessage) -> Envelope | None:
    try:
        envelope = wiring.unseal(dead.message.sealed)
    except StemError:
        return None
    if (envelope.id, envelope.queue) != (dead.message.id, dead.message.queue):
        return None
    return envelope
