"""Laws 20, 21 and 23: the order of a status, reading back, and for how long."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from functools import partial

import hypothesis.strategies as st
import pytest
from hypothesis import given

from stem_core.contracts.backend.base import BackendBase
from stem_core.contracts.backend.lab import BackendLab, Desk
from stem_core.contracts.driver import unique
from stem_core.contracts.laws import check, expect
from stem_core.contracts.punctual import punctual
from stem_core.contracts.strategies import same, updates
from stem_core.ports.backend import Backend, Outcome
from stem_core.status import (
    PUBLISH_FAILED,
    Progress,
    StatusUpdate,
    TaskError,
    TaskState,
    TaskStatus,
    merge,
)

__all__ = ["StatusLaws"]

TERMINAL = (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED)
for_ever = st.none()


class StatusLaws(BackendBase):
    def test_law_20_updates_are_merged_in_order(self, lab: BackendLab) -> None:
        """``stem_core.status.merge`` says what becomes of any updates, in batches or one by one."""
        desks = [lab.desk(), lab.desk()]

        @self.budget.property()
        @given(st.lists(st.lists(updates(st.just("x"), for_ever), min_size=1, max_size=4), max_size=4))
        def law(batches: list[list[StatusUpdate]]) -> None:
            id = unique("s")
            status: TaskStatus | None = None
            for number, batch in enumerate(batches):
                real = [_renamed(update, id) for update in batch]
                answers = desks[number % 2].record(*real)
                for update, answer in zip(real, answers, strict=True):
                    merged = merge(status, update)
                    check(answer == (merged is not None), 20, f"{update} after {status} answered {answer}")
                    status = merged or status
                found = desks[0].one(id)
                check(same(found, status), 20, f"recorded {real}, read {found}, expected {status}")

        law()

    @pytest.mark.parametrize("second", list(TaskState))
    @pytest.mark.parametrize("first", list(TaskState))
    def test_law_20_every_pair_of_states(self, lab: BackendLab, first: TaskState, second: TaskState) -> None:
        """Also with an attempt or a generation less, equal or more."""
        desk = lab.desk()
        for generation, attempt in ((1, 1), (1, 0), (1, 2), (0, 2), (2, 0)):
            id = unique("s")
            before = StatusUpdate(id=id, state=first, generation=1, attempt=1, payload=b"1", meta={"a": 1})
            after = StatusUpdate(id=id, state=second, generation=generation, attempt=attempt, meta={"b": 2})
            answers = [*desk.record(before), *desk.record(after)]
            start = merge(None, before)
            end = merge(start, after)
            check(answers == [True, end is not None], 20, f"{before} then {after} answered {answers}")
            check(same(desk.one(id), end or start), 20, f"{before} then {after} left {desk.one(id)}")

    @pytest.mark.parametrize("later", [TaskState.QUEUED, TaskState.RUNNING, *TERMINAL])
    def test_law_20_a_failed_publish_is_not_the_end(self, lab: BackendLab, later: TaskState) -> None:
        desk = lab.desk()
        id = unique("s")
        error = TaskError("PublishError", "no")
        failed = StatusUpdate(id=id, state=TaskState.FAILED, reason=PUBLISH_FAILED, error=error)
        check(desk.record(failed) == [True], 20, "a failed publish was refused")
        found = desk.one(id)
        check(
            found is not None and found.reason == PUBLISH_FAILED and not found.terminal, 20, f"read {found}"
        )
        check(
            desk.record(StatusUpdate(id=id, state=later)) == [True],
            20,
            f"{later} after publish-failed was refused",
        )
        found = desk.one(id)
        if found is None or found.state is not later or found.reason is not None or found.error is not None:
            check(False, 20, f"{later} after publish-failed left {found}")
        check(desk.record(failed) == [later is TaskState.QUEUED], 20, f"publish-failed after {later}")

    def test_law_20_the_first_end_of_a_generation_stays(self, lab: BackendLab) -> None:
        one, other = lab.desk(), lab.desk()
        id = unique("s")
        first = StatusUpdate(id=id, state=TaskState.SUCCEEDED, payload=b"mine", encoder="json")
        check(one.record(first) == [True], 20, "a first end was refused")
        for state in TaskState:
            late = StatusUpdate(id=id, state=state, attempt=5, payload=b"yours", meta={"late": True})
            check(other.record(late) == [False], 20, f"{state} after the end of the generation was accepted")
        check(same(one.one(id), merge(None, first)), 20, f"the end became {one.one(id)}")
        check(other.record(StatusUpdate(id=id, state=TaskState.QUEUED, generation=1)) == [True], 20,
              "a replay (next generation) was refused")  # fmt: skip

    def test_law_20_of_concurrent_ends_one_is_told_true(self, lab: BackendLab) -> None:
        keeper = lab.desk()
        ids = [unique("s") for _ in range(max(2, self.budget.races // 4))]
        keeper.record(*(StatusUpdate(id=id, state=TaskState.RUNNING) for id in ids))

        async def end(writer: int, backend: Backend, number: int) -> bool:
            state = TERMINAL[writer % 3]
            update = StatusUpdate(id=ids[number], state=state, payload=b"%d" % writer)
            return (await backend.record([update]))[0]

        rounds = self.rounds(lab, len(ids), *(partial(end, writer) for writer in range(6)))
        for id, answers in zip(ids, rounds, strict=True):
            check(sum(answers) == 1, 20, f"6 ends at once, expected one True: {answers}")
            found = keeper.one(id)
            winner = b"%d" % answers.index(True)
            check(
                found is not None and found.payload == winner, 20, f"{winner!r} was told True, read {found}"
            )

    def test_law_20_concurrent_merges_lose_nothing(self, lab: BackendLab) -> None:
        keeper = lab.desk()
        id = unique("s")
        keeper.record(StatusUpdate(id=id, state=TaskState.RUNNING))

        async def mark(backend: Backend, number: int) -> list[bool]:
            return [
                (
                    await backend.record(
                        [StatusUpdate(id=id, state=TaskState.RUNNING, meta={f"{number}.{i}": i})]
                    )
                )[0]
                for i in range(5)
            ]

        answers = self.at_once(lab, *((lambda b, n=n: mark(b, n)) for n in range(4)))
        check(all(map(all, answers)), 20, f"equal updates answered {answers}")
        found = keeper.one(id)
        check(found is not None and len(found.meta) == 20, 20, f"20 keys merged at once, read {found}")

    def test_law_21_what_was_recorded_is_read_back(self, lab: BackendLab) -> None:
        writer, reader = lab.desk(), lab.desk()

        @self.budget.property()
        @given(st.lists(updates(st.just("x"), for_ever), min_size=1, max_size=4))
        def law(batch: list[StatusUpdate]) -> None:
            real = [_renamed(update, unique("s")) for update in batch]
            check(writer.record(*real) == [True] * len(real), 20, "a first update was refused")
            found = reader.fetch(*(update.id for update in real))
            for update, status in zip(real, found, strict=True):
                check(same(status, merge(None, update)), 21, f"recorded {update}, read {status}")

        law()

    def test_law_21_everything_at_once(self, lab: BackendLab) -> None:
        desk = lab.desk()
        moment = datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC)
        update = StatusUpdate(
            id="i" * 128,
            state=TaskState.FAILED,
            generation=2**31 - 1,
            attempt=2**31 - 1,
            name="n" * 128,
            queue="\U0001f600" * 128,
            payload=bytes(range(256)) * 1024,
            encoder="cbor+zstd+aes-gcm",
            error=TaskError("a.B", "line\n\0'\"\\", "tb" * 20_000),
            reason="rejected",
            meta={"int": 2**63 - 1, "least": -(2**63), "float": 1e300, "one": 1.0, "true": True, "none": None,
                  "text": "\0\ud7ff\U0010ffff'\"\\", "deep": [[{"a": [0.1]}], []], "empty": {}, "k'\"\\%_": 0},
            progress=Progress(33.3, {"a": [1, 1.5, "x", None]}),
            enqueued_at=moment,
            started_at=moment + timedelta(microseconds=1),
            finished_at=datetime(2024, 3, 1, 1, 0, 0, 1, tzinfo=timezone(timedelta(hours=1))),
        )  # fmt: skip
        check(desk.record(update) == [True], 21, "a first update was refused")
        found = desk.one(update.id)
        wanted = merge(None, update)
        for name in StatusUpdate.__struct_fields__:
            if name not in {"ttl", "finished_at"}:
                real, expected = getattr(found, name), getattr(wanted, name)
                check(
                    same(real, expected), 21, f"{name} was recorded {expected!r:.200} and read {real!r:.200}"
                )
        assert found is not None
        check(
            found.finished_at == update.finished_at,
            21,
            f"finished_at {update.finished_at} is {found.finished_at}",
        )

    def test_law_21_fetch_answers_in_the_order_asked(self, lab: BackendLab) -> None:
        desk = lab.desk()
        ids = [unique("s") for _ in range(5)]
        desk.record(*(StatusUpdate(id=id, state=TaskState.QUEUED, name=id) for id in ids))
        asked = [ids[3], "unknown", ids[0], ids[3], ids[1]]
        found = [status and status.id for status in desk.fetch(*asked)]
        check(found == [ids[3], None, ids[0], ids[3], ids[1]], 21, f"fetch of {asked} gave {found}")
        check(desk.fetch() == [] and desk.record() == [], 21, "nothing asked, something answered")

    def test_law_10_namespaces_are_isolated(self, lab: BackendLab) -> None:
        mine, other = lab.desk(), lab.desk(namespace=lab.driver.namespace + "x")
        mine.record(StatusUpdate(id="same", state=TaskState.SUCCEEDED))
        check(other.one("same") is None, 10, "fetch shows another namespace's status")
        check(other.wait("same", 0.0) is None, 10, "wait gives another namespace's status")
        check(
            other.record(StatusUpdate(id="same", state=TaskState.QUEUED)) == [True],
            10,
            "an end in another namespace refused an update in this one",
        )
        if lab.caps.listing:
            check(
                [s.state for s in other.listed()] == [TaskState.QUEUED], 10, "list shows another namespace's"
            )
        if lab.caps.state:
            version = mine.state_write("k", b"", expect=0)
            check(
                other.state_read("k").value is None and not other.state_scan(""),
                10,
                "state_read or state_scan shows another namespace's value",
            )
            check(not other.state_delete("k", expect=version), 10, "state_delete reached another namespace")
            check(
                mine.state_read("k").version == version,
                10,
                "a value is gone after a call in another namespace",
            )
        if lab.caps.groups:
            good = Outcome(TaskState.SUCCEEDED)
            mine.group_create("g", ["a"])
            check(other.group_get("g") is None, 10, "group_get shows another namespace's group")
            check(not other.group_add("g", "a", good).complete, 10, "group_add reached another namespace")
            check(
                not other.group_close("g", "cancelled").complete, 10, "group_close reached another namespace"
            )
            check(mine.group_add("g", "a", good).complete, 10, "a call in another namespace changed a group")
        if lab.caps.limiter:
            granted = [desk.limit_take("l", 3, 0.001, 3).granted for desk in (mine, other, mine)]
            check(
                granted == [True, True, False],
                10,
                f"3 of 3 permits taken here, there and here: granted {granted}",
            )

    @punctual
    def test_law_23_kept_for_its_ttl_and_no_longer(self, lab: BackendLab) -> None:
        self.needs("ttl")
        desk, unit = lab.desk(), lab.pace.lease
        short, long, ever = (unique("s") for _ in range(3))
        for id, ttl in ((short, unit), (long, unit * 3), (ever, None)):
            desk.record(StatusUpdate(id=id, state=TaskState.QUEUED, ttl=ttl, name=id, payload=b"x"))
        lab.advance(unit * 0.6)
        ttls = f"ttls of {unit}, {3 * unit} and None (for ever)"
        expect(
            _kept(desk, short, long, ever), [True, True, True], 23, f"{ttls}, kept {0.6 * unit:.3f} s later"
        )
        lab.outlive(unit * 0.4)
        expect(_kept(desk, short, long, ever), [False, True, True], 23, f"{ttls}, kept after {unit} s")
        if lab.caps.listing:
            listed = {status.id for status in desk.listed()}
            expect(listed, {long, ever}, 23, f"ids listed when the ttl of {short!r} is over")
        expect(desk.record(StatusUpdate(id=short, state=TaskState.QUEUED)), [True], 23,
               "a first update of an id whose status has expired")  # fmt: skip
        again = desk.one(short)
        expect(again and (again.payload, again.name), (None, None), 23,
               "payload and name of a status recorded anew (without them) after its ttl")  # fmt: skip

    @punctual
    def test_law_23_each_accepted_write_renews(self, lab: BackendLab) -> None:
        self.needs("ttl")
        desk, unit = lab.desk(), lab.pace.lease
        renewed, refused, freed, bound = (unique("s") for _ in range(4))
        for id in (renewed, refused, freed):
            desk.record(StatusUpdate(id=id, state=TaskState.RUNNING, ttl=unit))
        desk.record(StatusUpdate(id=bound, state=TaskState.RUNNING))
        lab.advance(unit * 0.6)
        answers = desk.record(
            StatusUpdate(id=renewed, state=TaskState.RUNNING, ttl=unit),
            StatusUpdate(id=refused, state=TaskState.QUEUED, ttl=unit * 100),
            StatusUpdate(id=freed, state=TaskState.SUCCEEDED),
            StatusUpdate(id=bound, state=TaskState.SUCCEEDED, ttl=unit),
        )
        expect(answers, [True, False, True, True], 20,
               "running again, queued after running, and two ends")  # fmt: skip
        told = (f"ttl renewed at {0.6 * unit:.3f} s, renewal refused, ttl taken away, ttl given then; each of {unit} s; "
                "kept")  # fmt: skip
        lab.outlive(unit * 0.4)
        ids = (renewed, refused, freed, bound)
        expect(_kept(desk, *ids), [True, False, True, True], 23, f"{told} after the first ttl is over")
        lab.outlive(unit * 0.6)
        expect(_kept(desk, *ids), [False, False, True, False], 23, f"{told} after the renewed ttl is over")


def _kept(desk: Desk, *ids: str) -> list[bool]:
    return [status is not None for status in desk.fetch(*ids)]


def _renamed(update: StatusUpdate, id: str) -> StatusUpdate:
    fields = {name: getattr(update, name) for name in StatusUpdate.__struct_fields__}
    return StatusUpdate(**{**fields, "id": id})
