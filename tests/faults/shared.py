"""Faults of laws 24 to 26: groups, state, limits."""

from __future__ import annotations

import asyncio
from typing import Any

from stem_core.builtin.memory.groups import Group
from stem_core.contracts import BackendContract
from stem_core.ports.backend import GroupAnswer, LimitAnswer, StateEntry
from tests.faults.harness import broken, named
from tests.faults.memory import MemoryBackend, Records, backend, grouped
from tests.faults.publishing import changed

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
