"""Faults of laws 20 to 23 and 27."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

from stem_core.contracts import BackendContract
from stem_core.status import RANK_TERMINAL, StatusPage, TaskState, TaskStatus, merge
from tests.faults.harness import broken, named
from tests.faults.memory import MemoryBackend, Records, backend
from tests.faults.publishing import changed

# law 20: the order of a status


def merging(decide: Any, name: str) -> None:
    """``decide(current, update)``: the status after it, or None where it is refused."""

    class R(Records):
        def record(self, update, now):
            status = decide(self.fetch(update.id, now), update)
            if status is not None:
                self.put(status, update.ttl, now)
            return status is not None

    named(20, lambda: backend(records=R), name)


def _fresh(update: Any) -> TaskStatus:
    status = merge(None, update)
    assert status is not None
    return status


merging(lambda now, update: _fresh(update), "the_last_write_wins")
merging(
    lambda now, update: _fresh(update) if update.state is TaskState.QUEUED else merge(now, update),
    "queued_is_set_after_the_publish",
)
merging(
    lambda now, update: merge(None if now and now.terminal and update.rank == RANK_TERMINAL else now, update),
    "the_last_end_stays",
)
merging(
    lambda now, update: (
        None if now and now.state.terminal and update.generation == now.generation else merge(now, update)
    ),
    "a_failed_publish_is_the_end",
)
merging(lambda now, update: None if now and now.terminal else merge(now, update), "a_replay_is_refused")
merging(
    lambda now, update: (
        None
        if now and not now.terminal and update.attempt < now.attempt and update.rank < RANK_TERMINAL
        else merge(now and changed(now, attempt=min(now.attempt, update.attempt)), update)
    ),
    "an_old_attempt_ends_a_new_one",
)
merging(
    lambda now, update: (done := merge(now, update)) and changed(done, meta=update.meta or done.meta),
    "meta_is_replaced",
)
merging(
    lambda now, update: (
        None
        if now and (now.generation, now.attempt, now.rank) == (update.generation, update.attempt, update.rank)
        else merge(now, update)
    ),
    "an_equal_update_is_refused",
)
merging(
    lambda now, update: (
        (done := merge(now, update)) and changed(done, payload=update.payload or (now and now.payload))
    ),
    "the_payload_outlives_its_state",
)


@broken(20, BackendContract)
def read_merged_and_written_back() -> Any:
    class B(MemoryBackend):
        async def record(self, updates):
            store = self.store
            now = store.clock.time()
            merged = [merge(store.records.fetch(update.id, now), update) for update in updates]
            await asyncio.sleep(0)
            for status, update in zip(merged, updates, strict=True):
                if status is not None:
                    store.records.put(status, update.ttl, now)
            return [status is not None for status in merged]

    return backend(B)


# law 21: what is read back


def reading(change: Any, name: str) -> None:
    class R(Records):
        def put(self, status, ttl, now):
            super().put(change(status), ttl, now)

    named(21, lambda: backend(records=R), name)


def _milliseconds(status: Any) -> Any:
    names = ("enqueued_at", "started_at", "finished_at")
    times = {
        n: t.replace(microsecond=t.microsecond // 1000 * 1000) for n in names if (t := getattr(status, n))
    }
    return changed(status, **times)


def _floats(value: Any) -> Any:
    return json.loads(json.dumps(value), parse_int=float)


reading(_milliseconds, "timestamps_are_milliseconds")
reading(lambda s: changed(s, meta=_floats(s.meta)), "numbers_are_floats")
reading(lambda s: changed(s, payload=s.payload or None), "an_empty_payload_is_none")
reading(lambda s: changed(s, payload=s.payload and s.payload.decode("latin-1").encode()), "payloads_are_text")
reading(
    lambda s: changed(s, error=s.error and changed(s.error, traceback=s.error.traceback[:8192])),
    "tracebacks_are_cut",
)
reading(
    lambda s: changed(
        s, meta={k: v.replace("\0", "") if isinstance(v, str) else v for k, v in s.meta.items()}
    ),
    "nul_is_no_text",
)
reading(lambda s: changed(s, meta={k: v for k, v in s.meta.items() if v is not None}), "none_is_nothing")


@broken(21, BackendContract)
def fetch_answers_in_its_own_order() -> Any:
    class B(MemoryBackend):
        async def fetch(self, ids):
            order = sorted(set(ids))
            found = dict(zip(order, await super().fetch(order), strict=True))
            return [found[id] for id in order] + [None] * (len(ids) - len(order))

    return backend(B)


# law 22: wait


def waiting(wait: Any, name: str) -> None:
    class B(MemoryBackend):
        pass

    B.wait = wait
    named(22, lambda: backend(B), name)


async def _only_mine(self, id, timeout):
    """Woken by this client's own records alone."""
    found = (await self.fetch([id]))[0]
    if found is not None and found.terminal:
        return found
    await asyncio.sleep(timeout)
    found = (await self.fetch([id]))[0]
    return found if found is not None and found.terminal else None


async def _busy(self, id, timeout):
    loop = asyncio.get_running_loop()
    until = loop.time() + timeout
    while True:
        found = (await self.fetch([id]))[0]
        if found is not None and found.terminal:
            return found
        if loop.time() >= until:
            return None
        await asyncio.sleep(0)


async def _any_state(self, id, timeout):
    found = await MemoryBackend.wait(self, id, timeout)
    return found or (await self.fetch([id]))[0]


async def _failed_publish(self, id, timeout):
    found = (await self.fetch([id]))[0]
    return (
        found if found is not None and found.state.terminal else await MemoryBackend.wait(self, id, timeout)
    )


async def _raises(self, id, timeout):
    found = await MemoryBackend.wait(self, id, timeout)
    if found is None:
        raise TimeoutError
    return found


async def _one_each(self, id, timeout):
    """One waiter per id: a second replaces the first."""
    mine = self.__dict__.setdefault("waiters", {})
    old = mine.get(id)
    mine[id] = object()
    me = mine[id]
    if old is not None:
        pass
    found = await MemoryBackend.wait(self, id, timeout)
    if mine[id] is not me:
        await asyncio.sleep(timeout)
    return found


waiting(_only_mine, "another_clients_record_wakes_nobody")
waiting(_busy, "waiting_is_a_busy_loop")
waiting(_any_state, "a_timeout_gives_what_there_is")
waiting(_failed_publish, "a_failed_publish_is_a_result")
waiting(_raises, "a_timeout_raises")
waiting(_one_each, "one_waiter_for_each_id")


# law 23: ttl


def keeping(ttl: Any, name: str) -> None:
    class R(Records):
        def put(self, status, seconds, now):
            known = self._rows.get(status.id, now) is not None
            super().put(status, ttl(self, status, seconds, known, now), now)

    named(23, lambda: backend(records=R), name)


keeping(lambda self, s, ttl, known, now: None, "statuses_are_for_ever")
keeping(lambda self, s, ttl, known, now: ttl and ttl * 0.5, "statuses_go_early")
keeping(lambda self, s, ttl, known, now: ttl and ttl * 1.4, "statuses_go_late")
keeping(
    lambda self, s, ttl, known, now: (
        self._rows._deadlines[s.id] - now if known and s.id in self._rows._deadlines else ttl
    ),
    "only_the_first_write_counts",
)
keeping(
    lambda self, s, ttl, known, now: (
        self._rows._deadlines[s.id] - now if ttl is None and s.id in self._rows._deadlines else ttl
    ),
    "a_ttl_is_never_lifted",
)


@broken(23, BackendContract)
def a_refused_write_renews() -> Any:
    class R(Records):
        def record(self, update, now):
            done = super().record(update, now)
            status = self.fetch(update.id, now)
            if not done and status is not None:
                self.put(status, update.ttl, now)
            return done

    return backend(records=R)


# law 27: list


def listing(page: Any, name: str) -> None:
    class R(Records):
        pass

    R.page = page
    named(27, lambda: backend(records=R), name)


def _by_time(self, query, now):
    """The cursor is a time: of one moment only those of the first page are seen."""
    everything = Records.page(self, changed(query, limit=10_000, cursor=None), now).items
    rows = sorted((s for s in everything if s.enqueued_at is not None), key=lambda s: s.enqueued_at)
    rows = [s for s in rows if query.cursor is None or s.enqueued_at.isoformat() > query.cursor]
    more = rows[query.limit - 1].enqueued_at.isoformat() if len(rows) > query.limit else None
    return StatusPage(tuple(rows[: query.limit]), more)


def _until_included(self, query, now):
    from datetime import timedelta

    return Records.page(
        self, changed(query, until=query.until and query.until + timedelta(microseconds=1)), now
    )


def _one_filter(self, query, now):
    return Records.page(self, changed(query, queues=() if query.names else query.queues), now)


def _offset(self, query, now):
    """Pages overlap by one."""
    page = Records.page(self, query, now)
    if page.cursor is None or len(page.items) < 2:
        return page
    return StatusPage(page.items, str(int(page.cursor) + 1))


def _no_case(self, query, now):
    names = tuple(itertools.chain.from_iterable((n, n.lower(), n.upper()) for n in query.names))
    return Records.page(self, changed(query, names=names), now)


listing(_by_time, "pages_continue_after_a_time_of_statuses")
listing(_until_included, "until_is_included")
listing(_one_filter, "one_filter_at_a_time")
listing(_offset, "pages_overlap")
listing(_no_case, "names_in_a_list_ignore_case")
