"""Law 24: groups."""

from __future__ import annotations

from functools import partial

import hypothesis.strategies as st
import pytest
from hypothesis import given

from stem_core.contracts.backend.base import BackendBase
from stem_core.contracts.backend.lab import BackendLab, Desk
from stem_core.contracts.backend.model import GroupModel
from stem_core.contracts.driver import unique
from stem_core.contracts.laws import check, expect
from stem_core.contracts.punctual import punctual
from stem_core.contracts.strategies import outcomes, same
from stem_core.envelope import Message
from stem_core.ports.backend import Backend, Callback, GroupAnswer, Outcome
from stem_core.status import StatusUpdate, TaskError, TaskState

__all__ = ["GroupLaws", "callback"]

GOOD = Outcome(TaskState.SUCCEEDED, b"\0good\xff", "json")
BAD = Outcome(TaskState.FAILED, error=TaskError("E", "bad"))


def callback(count: int = 1) -> tuple[Callback, ...]:
    """Callback messages with ids of their own."""
    ids = [unique("cb") for _ in range(count)]
    return tuple(
        Callback(
            Message(
                id=id, queue="callbacks", sealed=b"\0sealed " + id.encode(), once=True, delay=0.5 * place
            ),
            StatusUpdate(
                id=id, state=TaskState.QUEUED, name="n", queue="callbacks", meta={"a": [1, 1.0]}, ttl=60.0
            ),
        )
        for place, id in enumerate(ids)
    )


class GroupLaws(BackendBase):
    def test_law_24_a_group_is_read_back_in_the_bodys_order(self, lab: BackendLab) -> None:
        self.needs("groups")
        desk = lab.desk()
        members = [f"m{n}" for n in (3, 1, 2, 10, 0)]
        calls, deadline = callback(2), lab.at(100.0)
        check(desk.group_create("g", members, calls, deadline=deadline), 24, "a new group was not created")
        check(not desk.group_create("g", ["other"]), 24, "a group was created twice")
        given_outcomes = {"m10": GOOD, "m1": GOOD, "m0": Outcome(TaskState.SUCCEEDED, None, None)}
        for member, outcome in given_outcomes.items():
            desk.group_add("g", member, outcome)
        found = desk.group_get("g")
        assert found is not None
        check(found.members == tuple(members), 24, f"members {members} are {found.members}")
        check(same(found.callback, calls), 24, f"callback {calls} is {found.callback}")
        check(found.deadline == deadline, 24, f"deadline {deadline} is {found.deadline}")
        check(
            same(dict(found.outcomes), given_outcomes), 24, f"outcomes {given_outcomes} are {found.outcomes}"
        )
        check(
            found.missing == ("m3", "m2") and found.completed_by is None and found.closed is None,
            24,
            f"outcomes of m10, m1 and m0 are there: expected m3 and m2 missing and neither completed nor closed, got {found}",
        )

    def test_law_24_outcomes_can_be_left_out(self, lab: BackendLab) -> None:
        self.needs("groups")
        desk = lab.desk()
        desk.group_create("g", ["a", "b", "c"])
        desk.group_add("g", "a", GOOD)
        desk.group_add("g", "b", BAD)
        found = desk.group_get("g", outcomes=False)
        assert found is not None
        states = {member: outcome.state for member, outcome in found.outcomes.items()}
        check(
            states == {"a": TaskState.SUCCEEDED, "b": TaskState.FAILED},
            24,
            f"without payloads: {found.outcomes}",
        )
        check(
            found.outcomes["a"].payload is None and found.outcomes["b"].error == BAD.error,
            24,
            f"with outcomes=False: expected no payload and the error {BAD.error}, got {found.outcomes}",
        )
        check(desk.group_get("unknown") is None, 24, "an unknown group was found")

    def test_law_24_the_last_member_completes_it_and_is_told_again(self, lab: BackendLab) -> None:
        self.needs("groups")
        desk, other = lab.desk(), lab.desk()
        desk.group_create("g", ["a", "b", "c"], callback())
        answers = [desk.group_add("g", member, GOOD) for member in "aab"]
        check([a.complete for a in answers] == [False] * 3, 24, f"a, a, b of a, b, c answered {answers}")
        check(desk.group_add("g", "c", GOOD).complete, 24, "the last member did not complete it")
        for member in "abccba":
            answer = other.group_add("g", member, BAD)
            check(answer.complete == (member == "c"), 24, f"{member} again, c completed it: {answer}")
        found = desk.group_get("g")
        check(found is not None and found.completed_by == "c" and all(
            outcome == GOOD for outcome in found.outcomes.values()), 24, f"a second outcome changed {found}")  # fmt: skip

    @pytest.mark.parametrize("bad", [TaskState.FAILED, TaskState.CANCELLED])
    def test_law_24_with_a_callback_the_first_failure_completes_it(
        self, lab: BackendLab, bad: TaskState
    ) -> None:
        self.needs("groups")
        desk = lab.desk()
        desk.group_create("g", ["a", "b", "c"], callback())
        failed = Outcome(bad, error=BAD.error)
        check(not desk.group_add("g", "a", GOOD).complete, 24, "a good member of three completed it")
        check(
            desk.group_add("g", "b", failed).complete,
            24,
            f"a {bad} member did not complete it",
        )
        check(
            not desk.group_add("g", "c", failed).complete,
            24,
            "a second failure completed it again",
        )
        check(
            desk.group_add("g", "b", failed).complete, 24, "the member that completed it was not told again"
        )
        found = desk.group_get("g")
        check(found is not None and len(found.outcomes) == 3 and found.completed_by == "b", 24,
              f"a good, b and c {bad}: expected 3 outcomes and completed_by 'b', got {found}")  # fmt: skip

    def test_law_24_without_a_callback_only_the_last_completes_it(self, lab: BackendLab) -> None:
        self.needs("groups")
        desk = lab.desk()
        desk.group_create("g", ["a", "b"])
        check(
            not desk.group_add("g", "a", BAD).complete,
            24,
            "without callback a failure completed it",
        )
        check(desk.group_add("g", "b", BAD).complete, 24, "the last member did not complete it")

    def test_law_24_unknown_groups_and_members_change_nothing(self, lab: BackendLab) -> None:
        self.needs("groups")
        desk = lab.desk()
        expect(
            desk.group_add("unknown", "a", GOOD), GroupAnswer(0, False), 24, "group_add of an unknown group"
        )
        check(
            desk.group_close("unknown", "cancelled") == GroupAnswer(0, False),
            24,
            "an unknown group was closed",
        )
        desk.group_create("g", ["a"])
        check(
            desk.group_add("g", "stranger", GOOD) == GroupAnswer(0, False), 24, "a stranger's outcome counted"
        )
        found = desk.group_get("g")
        check(found is not None and not found.outcomes and not found.complete, 24, f"a stranger left {found}")

    def test_law_24_an_empty_group_is_complete(self, lab: BackendLab) -> None:
        self.needs("groups")
        desk = lab.desk()
        desk.group_create("g", [], callback())
        found = desk.group_get("g")
        check(found is not None and found.completed_by == "" and found.members == (), 24,
              f"a group without members: expected completed_by '' at once, got {found}")  # fmt: skip
        check(not desk.group_close("g", "deadline").complete, 24, "a complete group was closed")

    def test_law_24_close_names_the_missing_once(self, lab: BackendLab) -> None:
        self.needs("groups")
        desk, other = lab.desk(), lab.desk()
        desk.group_create("g", ["a", "b", "c"], callback())
        desk.group_add("g", "b", GOOD)
        check(desk.group_close("g", "deadline").complete, 24, "an open group was not closed")
        found = desk.group_get("g")
        check(found is not None and found.closed == "deadline" and found.completed_by == "" and
              found.missing == ("a", "c"), 24, f"closed: {found}")  # fmt: skip
        check(other.group_close("g", "deadline").complete, 24, "the reason that closed it was not told again")
        check(not other.group_close("g", "cancelled").complete, 24, "another reason closed it again")
        for member in "abc":
            check(not desk.group_add("g", member, GOOD).complete, 24, f"{member} completed a closed group")
        found = desk.group_get("g")
        check(
            found is not None and len(found.outcomes) == 3 and found.closed == "deadline",
            24,
            f"late ones: {found}",
        )
        desk.group_create("h", ["a"])
        desk.group_add("h", "a", GOOD)
        check(not desk.group_close("h", "cancelled").complete, 24, "a complete group was closed")

    def test_law_24_any_history(self, lab: BackendLab) -> None:
        self.needs("groups")
        desks = [lab.desk(), lab.desk()]
        steps = st.one_of(st.tuples(st.integers(0, 4), outcomes), st.sampled_from(("cancelled", "deadline")))

        @self.budget.property()
        @given(st.integers(0, 4), st.booleans(), st.lists(steps, max_size=10))
        def law(size: int, calls: bool, history: list[tuple[int, Outcome] | str]) -> None:
            id = unique("g")
            members = [f"m{n}" for n in range(size)]
            back = callback() if calls else ()
            desks[0].group_create(id, members, back)
            model = GroupModel(tuple(members), bool(back))
            for number, step in enumerate(history):
                desk: Desk = desks[number % 2]
                if isinstance(step, str):
                    answer, wanted = desk.group_close(id, step), model.close(step)
                else:
                    answer, wanted = (
                        desk.group_add(id, f"m{step[0]}", step[1]),
                        model.add(f"m{step[0]}", step[1]),
                    )
                check(answer.complete == wanted.complete, 24, f"{step} after {history[:number]} of {members} with"
                      f"{'' if calls else 'out'} callback answered {answer}")  # fmt: skip
            found = desks[0].group_get(id)
            assert found is not None
            real = (dict(found.outcomes), found.completed_by, found.closed)
            check(
                same(real, (model.outcomes, model.completed_by, model.closed)), 24, f"{history} left {real}"
            )

        law()

    def test_law_24_concurrent_members_complete_it_once(self, lab: BackendLab) -> None:
        self.needs("groups")
        keeper = lab.desk()
        ids = [unique("g") for _ in range(max(2, self.budget.races // 4))]
        for number, id in enumerate(ids):
            keeper.group_create(id, [f"m{n}" for n in range(6)], callback() if number % 2 else ())
        # Some members twice, as when a step is repeated after a crash.
        members = [f"m{n % 6}" for n in range(8)]

        async def add(member: str, backend: Backend, number: int) -> bool:
            return (await backend.group_add(ids[number], member, GOOD)).complete

        rounds = self.rounds(lab, len(ids), *(partial(add, member) for member in members))
        for id, answers in zip(ids, rounds, strict=True):
            told = {member for member, answer in zip(members, answers, strict=True) if answer}
            found = keeper.group_get(id)
            check(
                found is not None and told == {found.completed_by},
                24,
                f"told complete: {told}, record {found}",
            )
            wanted = sum(member == found.completed_by for member in members) if found else 0
            check(1 <= sum(answers) <= wanted, 24, f"{members} answered {answers}, completed by {told}")

    def test_law_24_a_close_and_the_last_member_race(self, lab: BackendLab) -> None:
        self.needs("groups")
        keeper = lab.desk()
        ids = [unique("g") for _ in range(max(2, self.budget.races // 4))]
        for id in ids:
            keeper.group_create(id, ["a"], callback())

        async def add(backend: Backend, number: int) -> bool:
            return (await backend.group_add(ids[number], "a", GOOD)).complete

        async def close(backend: Backend, number: int) -> bool:
            return (await backend.group_close(ids[number], "deadline")).complete

        for answers in self.rounds(lab, len(ids), add, close):
            check(sum(answers) == 1, 24, f"the last member and a close at once, expected one True: {answers}")

    @punctual
    def test_law_24_every_add_renews_the_ttl(self, lab: BackendLab) -> None:
        self.needs("groups")
        self.needs("ttl")
        desk, unit = lab.desk(), lab.pace.lease
        for id in ("kept", "left"):
            desk.group_create(id, ["a", "b"], ttl=unit)
        lab.advance(unit * 0.6)
        desk.group_add("kept", "a", GOOD)
        lab.outlive(unit * 0.4)
        check(desk.group_get("kept") is not None, 24, "group_add did not renew the ttl")
        check(desk.group_get("left") is None, 24, "a group outlived its ttl")
        check(desk.group_add("left", "a", GOOD) == GroupAnswer(0, False), 24, "an expired group counts")
        check(desk.group_create("left", ["z"], ttl=unit), 24, "an expired group's id is taken")
        found = desk.group_get("left")
        check(
            found is not None and found.members == ("z",) and not found.outcomes, 24, f"created anew: {found}"
        )

    def test_law_24_many_members(self, lab: BackendLab) -> None:
        self.needs("groups")
        desk = lab.desk()
        members = [f"m{n}" for n in range(120)]  # more than any page
        desk.group_create("g", members)
        answers = [desk.group_add("g", member, GOOD) for member in members]
        told = [number for number, answer in enumerate(answers, 1) if answer.complete]
        expect(told, [120], 24, "of 120 members, which were told that they completed the group")
