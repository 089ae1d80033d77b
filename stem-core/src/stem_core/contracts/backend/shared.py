"""Laws 25, 26 and 27: compare-and-set, limits, and listing; and the refusal of what is not declared."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from stem_core.contracts.backend.base import BackendBase
from stem_core.contracts.backend.lab import BackendLab
from stem_core.contracts.driver import unique
from stem_core.contracts.laws import LawBroken, broken, check, expect
from stem_core.contracts.punctual import punctual
from stem_core.errors import UnsupportedCapability
from stem_core.ports.backend import Backend, Outcome
from stem_core.status import StatusQuery, StatusUpdate, TaskState

__all__ = ["SharedLaws"]

OPTIONAL: dict[str, dict[str, Callable[[Backend], Coroutine[Any, Any, Any]]]] = {
    "groups": {
        "group_create": lambda b: b.group_create("g", ["a"], (), None, 60.0),
        "group_add": lambda b: b.group_add("g", "a", Outcome(TaskState.SUCCEEDED)),
        "group_close": lambda b: b.group_close("g", "cancelled"),
        "group_get": lambda b: b.group_get("g"),
    },
    "state": {
        "state_read": lambda b: b.state_read("k"),
        "state_write": lambda b: b.state_write("k", b"", expect=0, ttl=None),
        "state_delete": lambda b: b.state_delete("k"),
        "state_scan": lambda b: b.state_scan(""),
    },
    "limiter": {"limit_take": lambda b: b.limit_take("k", 1, 1.0, 1)},
    "listing": {"list": lambda b: b.list(StatusQuery())},
}


class SharedLaws(BackendBase):
    # state

    def test_law_25_a_write_needs_the_version(self, lab: BackendLab) -> None:
        self.needs("state")
        one, other = lab.desk(), lab.desk()
        key = "k'\"\\%_:*{}" + unique()
        absent = one.state_read(key)
        check((absent.value, absent.version) == (None, 0), 25, f"an absent key reads {absent}")
        check(one.state_write(key, b"x", expect=7) is None, 25, "an absent key was written with expect=7")
        first = one.state_write(key, b"\0one\xff", expect=0)
        check(first is not None and first > 0, 25, f"a first write answered {first}")
        read = other.state_read(key)
        check((read.value, read.version) == (b"\0one\xff", first), 25, f"wrote version {first}, read {read}")
        check(
            other.state_write(key, b"two", expect=0) is None, 25, "an existing key was written with expect=0"
        )
        second = other.state_write(key, b"", expect=read.version)
        check(second is not None and second != first, 25, f"versions {first} and {second}")
        check(one.state_write(key, b"three", expect=read.version) is None, 25, "written with an old version")
        read = one.state_read(key)
        check((read.value, read.version) == (b"", second), 25, f"wrote version {second}, read {read}")

    @punctual
    def test_law_25_the_clock_is_the_stores(self, lab: BackendLab) -> None:
        self.needs("state")
        desk = lab.desk()
        for _ in range(2):
            now = desk.state_read("absent").now
            tolerance = lab.pace.slack + lab.pace.early
            check(now.tzinfo is not None, 25, f"now {now} has no time zone")
            check(
                desk.when.lo - tolerance <= now.timestamp() <= desk.when.hi + tolerance, 25, f"now is {now}"
            )
            lab.advance(lab.pace.lease)

    @punctual
    def test_law_25_a_version_is_never_used_twice(self, lab: BackendLab) -> None:
        """Not after a delete, not after an expiry: a slow writer must not mistake the new for the old."""
        self.needs("state")
        desk = lab.desk()
        seen: list[int | None] = []
        for turn in range(4):
            seen.append(desk.state_write("k", b"x", expect=0, ttl=lab.pace.lease if turn % 2 else None))
            if turn % 2:
                lab.outlive(lab.pace.lease)
            else:
                check(desk.state_delete("k"), 25, "an existing key was not deleted")
            check(desk.state_read("k").version == 0, 25, "a deleted or expired key has a version")
        check(None not in seen and len(set(seen)) == len(seen), 25,
              f"versions of one key, deleted and expired in turn: expected 4 different ones, got {seen}")  # fmt: skip

    def test_law_25_delete_needs_the_version_given(self, lab: BackendLab) -> None:
        self.needs("state")
        desk = lab.desk()
        version = desk.state_write("k", b"x", expect=0)
        check(
            version is not None and not desk.state_delete("k", expect=version + 1),
            25,
            "deleted another version",
        )
        check(desk.state_read("k").value == b"x", 25, "a refused delete deleted")
        check(desk.state_delete("k", expect=version), 25, "the version expected was not deleted")
        check(not desk.state_delete("k") and not desk.state_delete("k", expect=version), 25, "deleted twice")
        check(not desk.state_delete("k", expect=0), 25, "an absent key was removed")

    @punctual
    def test_law_25_a_value_is_kept_for_its_ttl(self, lab: BackendLab) -> None:
        self.needs("state")
        desk, unit = lab.desk(), lab.pace.lease
        desk.state_write("short", b"x", expect=0, ttl=unit)
        version = desk.state_write("freed", b"x", expect=0, ttl=unit)
        desk.state_write("ever", b"x", expect=0)
        lab.advance(unit * 0.6)
        check(
            version is not None and desk.state_write("freed", b"y", expect=version) is not None,
            25,
            f"a value with a ttl of {unit} s could not be written with its version after {0.6 * unit:.3f} s",
        )
        check(desk.state_read("short").value == b"x", 25, "gone before its ttl was over")
        lab.outlive(unit * 0.4)
        found = [desk.state_read(key).value for key in ("short", "freed", "ever")]
        expect(found, [None, b"y", b"x"], 25, f"after {unit} s, a value whose ttl is over, one whose ttl was removed, "
               "one without")  # fmt: skip
        check([entry.key for entry in desk.state_scan("")] in (["ever", "freed"], ["freed", "ever"]), 25,
              f"scan shows {desk.state_scan('')}")  # fmt: skip

    def test_law_25_scan_takes_the_prefix_literally(self, lab: BackendLab) -> None:
        self.needs("state")
        desk = lab.desk()
        keys = ["a", "ab", "a%", "a_", "a*", "a?", "a[b]", "b", "A", "aé", "a\\", "a'"]
        for key in keys:
            desk.state_write(key, key.encode(), expect=0)
        for prefix in ["", "a", "a%", "a_", "a*", "a?", "a[", "A", "aé", "a\\", "zz"]:
            found = desk.state_scan(prefix)
            wanted = {key: key.encode() for key in keys if key.startswith(prefix)}
            check({e.key: e.value for e in found} == wanted and len(found) == len(wanted), 25,
                  f"scan of {prefix!r} gave {[entry.key for entry in found]}")  # fmt: skip
            for entry in found:
                check(
                    desk.state_read(entry.key).version == entry.version, 25, f"the version of {entry.key!r}"
                )

    def test_law_25_of_concurrent_writers_one_wins(self, lab: BackendLab) -> None:
        self.needs("state")
        keeper = lab.desk()
        keys = {unique("k"): 0 for _ in range(max(2, self.budget.races // 4))}
        for key in list(keys)[::2]:
            keys[key] = keeper.state_write(key, b"start", expect=0) or 0
        expected = list(keys.items())

        async def write(writer: int, backend: Backend, number: int) -> int | None:
            key, version = expected[number]
            return await backend.state_write(key, b"%d" % writer, expect=version, ttl=None)

        rounds = self.rounds(lab, len(keys), *(partial(write, writer) for writer in range(6)))
        for (key, version), answers in zip(expected, rounds, strict=True):
            won = [writer for writer, answer in enumerate(answers) if answer is not None]
            check(len(won) == 1, 25, f"6 writers expecting version {version}, one can win: {answers}")
            read = keeper.state_read(key)
            check(
                (read.value, read.version) == (b"%d" % won[0], answers[won[0]]), 25, f"{answers}, read {read}"
            )

    def test_law_25_a_counter_counts(self, lab: BackendLab) -> None:
        """Read, add one, write if unchanged: no increment is lost."""
        self.needs("state")
        keeper = lab.desk()

        async def count(backend: Backend) -> int:
            done = 0
            while done < 8:
                read = await backend.state_read("counter")
                value = b"%d" % (int(read.value or b"0") + 1)
                if await backend.state_write("counter", value, expect=read.version, ttl=None) is not None:
                    done += 1
            return done

        self.at_once(lab, *[count] * 4)
        found = keeper.state_read("counter").value
        check(found == b"32", 25, f"4 writers added 8 each, the counter is {found!r}")

    # limiter

    @punctual
    def test_law_26_a_full_bucket_grants_its_burst_and_no_more(self, lab: BackendLab) -> None:
        self.needs("limiter")
        desk = lab.desk()
        rate, burst = 1 / lab.pace.lease, 5
        answers = [desk.limit_take("k", 1, rate, burst) for _ in range(7)]
        check([a.granted for a in answers] == [True] * 5 + [False] * 2, 26, f"burst 5, 7 asked: {answers}")
        check(
            0 < answers[-1].retry_after <= lab.pace.lease + 0.001,
            26,
            f"retry_after {answers[-1].retry_after}",
        )
        check(desk.limit_take("other", 5, rate, burst).granted, 26, "another key's bucket is not full")
        lab.advance(answers[-1].retry_after + lab.pace.settle + 0.001)
        answers = [desk.limit_take("k", 1, rate, burst) for _ in range(2)]
        check([a.granted for a in answers] == [True, False], 26, f"after retry_after: {answers}")

    def test_law_26_permits_are_taken_all_or_none(self, lab: BackendLab) -> None:
        self.needs("limiter")
        desk = lab.desk()
        rate = 0.001
        answers = [desk.limit_take("k", permits, rate, 10) for permits in (7, 4, 3, 1)]
        check(
            [a.granted for a in answers] == [True, False, True, False], 26, f"7, 4, 3 and 1 of 10: {answers}"
        )
        with pytest.raises(ValueError, match=r"."):
            desk.limit_take("k", 11, rate, 10)

    def test_law_26_no_window_grants_more(self, lab: BackendLab) -> None:
        self.needs("limiter")
        if not lab.pace.exact:
            pytest.skip("needs injected time; test_law_26_under_contention covers the real one")
        desk = lab.desk()
        steps = st.tuples(st.integers(1, 3), st.sampled_from((0.0, 0.01, 0.3, 1.0, 2.5)))

        @self.budget.property()
        @given(st.integers(3, 6), st.sampled_from((0.5, 1.0, 3.0)), st.lists(steps, min_size=1, max_size=25))
        def law(burst: int, rate: float, asked: list[tuple[int, float]]) -> None:
            key = unique("l")
            granted: list[tuple[float, int]] = []
            tokens, last = float(burst), desk.driver.time.now()
            for permits, pause in asked:
                lab.advance(pause)
                now = desk.driver.time.now()
                tokens, last = min(burst, tokens + (now - last) * rate), now
                answer = desk.limit_take(key, permits, rate, burst)
                if abs(tokens - permits) > 0.001:  # at the very moment either is right
                    check(answer.granted == (tokens > permits), 26, f"{tokens:.3f} permits are there, {permits} asked: "
                          f"{answer} (rate {rate}, burst {burst})")  # fmt: skip
                if answer.granted:
                    tokens -= permits
                    granted.append((now, permits))
                for start, (begin, _) in enumerate(granted):
                    total = sum(count for _, count in granted[start:])
                    check(total <= burst + rate * (now - begin) + 0.01, 26, f"{total} within {now - begin} s")

        law()

    def test_law_26_under_contention(self, lab: BackendLab) -> None:
        self.needs("limiter")
        rate, burst = 0.5, 20
        start = lab.driver.time.now()

        async def take(backend: Backend) -> int:
            return sum([(await backend.limit_take("k", 1, rate, burst)).granted for _ in range(15)])

        total = sum(self.at_once(lab, *[take] * 6))
        most = burst + rate * (lab.driver.time.now() - start) + 1
        check(burst <= total <= most, 26, f"6 takers at once got {total} of {burst} and at most {most:.1f}")

    # listing

    def test_law_27_list_returns_exactly_what_matches(self, lab: BackendLab) -> None:
        self.needs("listing")
        desk = lab.desk()
        base = datetime(2024, 1, 1, tzinfo=UTC)
        sent = [
            StatusUpdate(
                id=f"{number:02}",
                state=list(TaskState)[number % 6],
                name=("a", "b", "a%", None)[number % 4],
                queue=("q", "r", None)[number % 3],
                enqueued_at=base + timedelta(microseconds=number) if number % 5 else None,
            )
            for number in range(40)
        ]
        desk.record(*sent)

        @self.budget.property()
        @given(
            st.lists(st.sampled_from(list(TaskState)), max_size=3, unique=True),
            st.lists(st.sampled_from(("a", "b", "a%", "A", "%")), max_size=2, unique=True),
            st.lists(st.sampled_from(("q", "r", "Q")), max_size=2, unique=True),
            st.none() | st.integers(0, 40),
            st.none() | st.integers(0, 40),
            st.sampled_from((1, 3, 7, 100)),
        )
        def law(
            states: list[TaskState],
            names: list[str],
            queues: list[str],
            since: int | None,
            until: int | None,
            limit: int,
        ) -> None:
            low = None if since is None else base + timedelta(microseconds=since)
            high = None if until is None else base + timedelta(microseconds=until)
            query = {
                "states": tuple(states),
                "names": tuple(names),
                "queues": tuple(queues),
                "since": low,
                "until": high,
            }
            found = [status.id for status in desk.listed(limit=limit, **query)]
            wanted = [
                each.id
                for each in sent
                if (not states or each.state in states)
                and (not names or each.name in names)
                and (not queues or each.queue in queues)
                and (low is None or (each.enqueued_at is not None and each.enqueued_at >= low))
                and (high is None or (each.enqueued_at is not None and each.enqueued_at < high))
            ]
            check(
                sorted(found) == wanted,
                27,
                f"list of {query}, {limit} a page, gave {sorted(found)}, not {wanted}",
            )

        law()

    def test_law_27_equal_times_do_not_hide_each_other(self, lab: BackendLab) -> None:
        self.needs("listing")
        desk = lab.desk()
        moment = datetime(2024, 1, 1, tzinfo=UTC)
        ids = [unique("s") for _ in range(23)]
        desk.record(*(StatusUpdate(id=id, state=TaskState.QUEUED, enqueued_at=moment) for id in ids))
        found = [status.id for status in desk.listed(limit=5)]
        check(
            sorted(found) == sorted(ids),
            27,
            f"23 of one moment, 5 a page: {len(found)}, {len(set(found))} different",
        )

    def test_law_27_what_is_listed_is_what_is_fetched(self, lab: BackendLab) -> None:
        self.needs("listing")
        desk = lab.desk()
        desk.record(StatusUpdate(id="a", state=TaskState.RUNNING, meta={"x": [1.0]}, payload=b"\0", name="n"))
        desk.record(StatusUpdate(id="a", state=TaskState.RUNNING, meta={"y": True}))
        check(desk.listed() == [desk.one("a")], 27, f"listed {desk.listed()}, fetched {desk.one('a')}")

    # what is not declared

    @pytest.mark.parametrize("capability", OPTIONAL)
    def test_undeclared_methods_are_refused(self, lab: BackendLab, capability: str) -> None:
        if getattr(self.spec.capabilities, capability):
            pytest.skip(f"declared: {capability}")
        desk = lab.desk()
        name = self.spec.name
        for method, call in OPTIONAL[capability].items():
            try:
                lab.driver.run(call(desk.backend))
            except UnsupportedCapability as error:
                check(
                    capability in str(error),
                    20,
                    f"{method} was refused without naming {capability!r}: {error}",
                )
            except Exception as error:
                raise LawBroken(20, f"{method} raised {error!r}; {name} does not declare {capability}, so it must be "
                                "UnsupportedCapability") from error  # fmt: skip
            else:
                broken(20, f"{method} did something, though {name} does not declare {capability}")

    def test_what_is_declared_is_what_the_adapter_says(self, lab: BackendLab) -> None:
        desk = lab.desk()
        check(desk.backend.capabilities == self.spec.capabilities, 20,
              f"the spec declares {self.spec.capabilities}, the backend {desk.backend.capabilities}")  # fmt: skip
