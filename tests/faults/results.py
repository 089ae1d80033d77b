"""Faults of laws 20 to 27."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

from stem_core.builtin.memory.groups import Group
from stem_core.contracts import BackendContract
from stem_core.ports.backend import GroupAnswer, LimitAnswer, StateEntry
from stem_core.status import RANK_TERMINAL, StatusPage, TaskState, TaskStatus, merge
from tests.faults.harness import broken
from tests.faults.memory import MemoryBackend, Records, backend, grouped
from tests.faults.publishing import changed


def named(law: int, make: Any, name: str) -> None:
    make.__name__ = name
    broken(law, BackendContract)(make)


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


# law 24: groups


def grouping(name: str, **methods: Any) -> None:
    named(24, lambda: backend(records=grouped(type("G", (Group,), methods))), name)


def _counts_deliveries(self, member, outcome):
    """A counter: a member that reports twice counts twice."""
    if member not in self._known:
        return GroupAnswer(0, False)
    self.outcomes.setdefault(member, outcome)
    seen = _COUNTS[id(self)] = _COUNTS.get(id(self), 0) + 1
    if self.completed_by is None and seen >= len(self.members):
        self.completed_by = member
    return GroupAnswer(max(0, len(self.members) - seen), self.completed_by == member)


_COUNTS: dict[int, int] = {}


def _told_once(self, member, outcome):
    before = self.completed_by
    answer = Group.add(self, member, outcome)
    return GroupAnswer(answer.left, answer.complete and before is None)


def _whoever_comes_later(self, member, outcome):
    answer = Group.add(self, member, outcome)
    return GroupAnswer(answer.left, self.completed_by is not None and member in self._known)


def _waits_for_all(self, member, outcome):
    callback, self.callback = self.callback, ()
    answer = Group.add(self, member, outcome)
    self.callback = callback
    return answer


def _fails_at_once(self, member, outcome):
    callback, self.callback = self.callback, self.callback or ("any",)
    answer = Group.add(self, member, outcome)
    self.callback = callback
    return answer


def _second_outcome(self, member, outcome):
    answer = Group.add(self, member, outcome)
    if member in self._known:
        self.outcomes[member] = outcome
    return answer


def _drops_late(self, member, outcome):
    if self.completed_by is not None and member not in self.outcomes:
        return GroupAnswer(self._left(), False)
    return Group.add(self, member, outcome)


def _strangers_count(self, member, outcome):
    if member not in self._known and self.members:
        self.outcomes[member] = outcome
        return GroupAnswer(self._left(), False)
    return Group.add(self, member, outcome)


def _sorted_members(self, *, outcomes):
    record = Group.record(self, outcomes=outcomes)
    return changed(record, members=tuple(sorted(record.members)))


def _closes_again(self, reason):
    self.closed = reason
    if self.completed_by is None:
        self.completed_by = ""
    return GroupAnswer(self._left(), True)


grouping("a_member_counts_each_time", add=_counts_deliveries)
grouping("complete_is_told_once", add=_told_once)
grouping("everybody_later_is_told_complete", add=_whoever_comes_later)
grouping("a_failure_waits_for_the_rest", add=_waits_for_all)
grouping("a_failure_completes_without_callback", add=_fails_at_once)
grouping("a_second_outcome_replaces_the_first", add=_second_outcome)
grouping("late_outcomes_are_dropped", add=_drops_late)
grouping("strangers_are_members", add=_strangers_count)
grouping("members_are_sorted", record=_sorted_members)
grouping("a_close_closes_again", close=_closes_again)


@broken(24, BackendContract)
def a_group_is_read_and_written_back() -> Any:
    class B(MemoryBackend):
        async def group_add(self, id, member, outcome):
            group = self.store.records._groups.get(id, self.store.clock.time())
            others = group is not None and set(group.outcomes) | {member} >= set(group.members)
            await asyncio.sleep(0)
            answer = await super().group_add(id, member, outcome)
            return GroupAnswer(answer.left, answer.complete and others) if group and not others else answer

    return backend(B)


# law 25: state


def stating(name: str, **methods: Any) -> None:
    named(25, lambda: backend(records=type("R", (Records,), methods)), name)


def _version_from_one(self, key, value, expect, ttl, now):
    current = self.state_read(key, now).version
    if current != expect:
        return None
    self._state.put(key, (value, current + 1), ttl, now)
    return current + 1


def _write_if_there(self, key, value, expect, ttl, now):
    current = self.state_read(key, now).version
    return None if expect and current != expect else Records.state_write(self, key, value, current, ttl, now)


def _keeps_ttl(self, key, value, expect, ttl, now):
    old = self._state._deadlines.get(key)
    seconds = ttl if ttl is not None or old is None else old - now
    return Records.state_write(self, key, value, expect, seconds, now)


def _any_version(self, key, expect, now):
    return Records.state_delete(self, key, None, now)


def _pattern(self, prefix, now):
    from fnmatch import fnmatchcase

    self._state.expire(now)
    return [StateEntry(k, *e) for k, e in sorted(self._state.items()) if fnmatchcase(k, prefix + "*")]


stating("versions_start_again", state_write=_version_from_one)
stating("an_absent_key_needs_no_version", state_write=_write_if_there)
stating("a_write_keeps_the_old_ttl", state_write=_keeps_ttl)
stating("a_delete_ignores_the_version", state_delete=_any_version)
stating("a_prefix_is_a_pattern", state_scan=_pattern)


@broken(25, BackendContract)
def compared_and_then_set() -> Any:
    class B(MemoryBackend):
        async def state_write(self, key, value, *, expect, ttl):
            if (await self.state_read(key)).version != expect:
                return None
            await asyncio.sleep(0)
            current = (await self.state_read(key)).version
            return await super().state_write(key, value, expect=current, ttl=ttl)

    return backend(B)


# law 26: limits


def limiting(take: Any, name: str) -> None:
    class R(Records):
        limit_take = take

    named(26, lambda: backend(records=R), name)


def _fixed_window(self, key, permits, rate, burst, now):
    """Counts per window: twice the burst at its edge."""
    if permits > burst:
        raise ValueError(permits)
    window = int(now * rate / burst)
    counts = self.__dict__.setdefault("windows", {})
    used = counts.get((key, window), 0)
    if used + permits > burst:
        return LimitAnswer(False, (window + 1) * burst / rate - now)
    counts[key, window] = used + permits
    return LimitAnswer(True)


def _some_of_them(self, key, permits, rate, burst, now):
    answer = Records.limit_take(self, key, permits, rate, burst, now)
    while not answer.granted and permits > 1:
        permits -= 1
        partial = Records.limit_take(self, key, permits, rate, burst, now)
        if partial.granted:
            break
    return answer


def _one_bucket(self, key, permits, rate, burst, now):
    return Records.limit_take(self, "", permits, rate, burst, now)


def _refusals_cost(self, key, permits, rate, burst, now):
    answer = Records.limit_take(self, key, permits, rate, burst, now)
    if not answer.granted:
        self._arrivals.put(key, (self._arrivals.get(key, now) or now) + permits / rate, 1e9, now)
    return answer


def _starts_empty(self, key, permits, rate, burst, now):
    if self._arrivals.get(key, now) is None:
        self._arrivals.put(key, now + (burst - permits) / rate, burst / rate, now)
    return Records.limit_take(self, key, permits, rate, burst, now)


limiting(_fixed_window, "a_window_that_starts_again")
limiting(_some_of_them, "some_permits_are_taken")
limiting(_one_bucket, "one_bucket_for_all_keys")
limiting(_refusals_cost, "refusals_cost_permits")
limiting(_starts_empty, "a_new_bucket_is_empty")


@broken(26, BackendContract)
def permits_are_read_and_written_back() -> Any:
    class B(MemoryBackend):
        async def limit_take(self, key, permits, rate, burst):
            records = self.store.records
            before = records._arrivals.get(key, self.store.clock.time())
            await asyncio.sleep(0)
            now = self.store.clock.time()
            if before is None:
                records._arrivals.remove(key)
            else:
                records._arrivals.put(key, before, 1e9, now)
            return records.limit_take(key, permits, rate, burst, now)

    return backend(B)


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
