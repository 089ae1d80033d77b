"""Law 32: what holds elsewhere holds in a step: groups and callbacks, order, delays, wake-ups."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

import hypothesis.strategies as st
from hypothesis import given

from stem_core.contracts.backend.groups import callback
from stem_core.contracts.backend.lab import Desk
from stem_core.contracts.broker.lab import Client
from stem_core.contracts.committer.base import BAD, GOOD, CommitLab, CommitterBase, done, running
from stem_core.contracts.concurrently import in_rounds
from stem_core.contracts.driver import unique
from stem_core.contracts.laws import check, expect
from stem_core.contracts.pace import LONG
from stem_core.contracts.strategies import same
from stem_core.envelope import Delivery, Retry, Settlement
from stem_core.ports.backend import Backend, Callback, GroupOutcome
from stem_core.ports.broker import Broker
from stem_core.ports.committer import Committer, Step
from stem_core.status import StatusUpdate, TaskState, TaskStatus, merge

__all__ = ["EqualLaws"]


class EqualLaws(CommitterBase):
    # the other laws, this way

    def test_law_32_a_callback_is_published_by_the_step_that_completes_it(self, lab: CommitLab) -> None:
        self.needs_groups()
        client, desk, committer = lab.joined()
        calls = callback(2)
        desk.group_create("g", ["a", "b"], calls)
        expect(
            lab.commit(committer, Step(outcomes=(GroupOutcome("g", "a", GOOD),))),
            [True],
            32,
            "a step with one outcome",
        )
        client.nothing("callbacks", 24, "one of two members is done")
        check(desk.fetch(*_ids(calls)) == [None, None], 24, "a queued row before the group is complete")
        last = Step(outcomes=(GroupOutcome("g", "b", GOOD),), updates=(done("b"),))
        for _ in range(2):  # a repeat publishes nothing twice
            expect(
                lab.commit(committer, Step(outcomes=last.outcomes)),
                [True],
                32,
                "a step with the last outcome of a group",
            )
        self._called(lab, client, desk, calls)
        check(desk.group_add("g", "b", GOOD).complete, 24, "the group does not know who completed it")

    def test_law_32_a_failed_member_publishes_the_callback_at_once(self, lab: CommitLab) -> None:
        self.needs_groups()
        client, desk, committer = lab.joined()
        calls = callback()
        desk.group_create("g", ["a", "b", "c"], calls)
        both = Step(outcomes=(GroupOutcome("g", "a", GOOD), GroupOutcome("g", "b", BAD)))
        expect(
            lab.commit(committer, both, Step(outcomes=(GroupOutcome("g", "c", BAD),))),
            [True, True],
            32,
            "a step with two outcomes and one with a third",
        )
        self._called(lab, client, desk, calls)
        group = desk.group_get("g")
        check(group is not None and group.completed_by == "b" and len(group.outcomes) == 3, 24,
              f"a good, b failed, c failed: expected 3 outcomes and completed_by 'b', got {group}")  # fmt: skip

    def test_law_32_a_callback_that_is_known_changes_nothing_else(self, lab: CommitLab) -> None:
        """Its message was published and its status went on before: the queued row must not go back."""
        self.needs_groups()
        client, desk, committer = lab.joined()
        calls = callback()
        desk.group_create("g", ["a"], calls)
        client.publish(calls[0].message)
        desk.record(running(calls[0].message.id))
        expect(
            lab.commit(committer, Step(outcomes=(GroupOutcome("g", "a", GOOD),))),
            [True],
            32,
            "a step that completes a group whose callback is known",
        )
        found = desk.one(calls[0].message.id)
        check(
            found is not None and found.state is TaskState.RUNNING, 20, f"a running callback became {found}"
        )
        check(len(client.drain("callbacks")) == 1, 2, "a known callback was added again")

    def _called(self, lab: CommitLab, client: Client, desk: Desk, calls: Sequence[Callback]) -> None:
        if self.broker.capabilities.delay:
            late = [call for call in calls if call.message.delay]
            found = client.drain("callbacks")
            check(
                len(found) == len(calls) - len(late) or not lab.pace.exact,
                8,
                f"before their delay came {found}",
            )
            lab.outlive(0.5)
            found += client.drain("callbacks")
        else:
            found = client.drain("callbacks")
        got = {delivery.message.id: delivery.message.sealed for delivery in found}
        wanted = {call.message.id: call.message.sealed for call in calls}
        check(got == wanted and len(found) == len(calls), 32, f"callbacks {list(wanted)} came as {list(got)}")
        for call, status in zip(calls, desk.fetch(*_ids(calls)), strict=True):
            check(same(status, merge(None, call.queued)), 32, f"the queued row of a callback reads {status}")

    def test_law_32_one_of_many_steps_completes_a_group(self, lab: CommitLab) -> None:
        """Members finish at once in several workers; the callback comes once."""
        self.needs_groups()
        client, desk, _ = lab.joined()
        groups = {unique("g"): callback() for _ in range(max(2, self.budget.races // 5))}
        for id, calls in groups.items():
            desk.group_create(id, [f"{id}.{n}" for n in range(6)], calls)
        ids = list(groups)

        async def opened() -> _Joined:
            broker = self.broker.open(lab.url, lab.driver.options())
            backend = self.backend.open(lab.backend_url, lab.driver.options())
            await broker.open()
            await backend.open()
            committer = broker.join(backend)
            assert committer is not None
            return _Joined(broker, backend, committer)

        async def finish(member: int, joined: _Joined, number: int) -> bool:
            id, name = ids[number], f"{ids[number]}.{member}"
            step = Step(updates=(done(name),), outcomes=(GroupOutcome(id, name, GOOD),))
            return (await joined.committer.commit([step]))[0]

        works = [partial(finish, member) for member in range(6)]
        threads = self.broker.capabilities.multi_process
        rounds = in_rounds(opened, works, len(ids), threads=threads, run=lab.driver.run)
        check(all(map(all, rounds)), 32, f"members at once, round by round, answered {rounds}")
        found = sorted(each.message.id for each in client.drain("callbacks"))
        expect(found, sorted(id for calls in groups.values() for id in _ids(calls)), 32,
               f"callbacks of {len(ids)} groups whose members finished at once")  # fmt: skip
        check(None not in desk.fetch(*found), 32, "a callback was published without its queued row")

    def test_law_32_updates_obey_the_order_of_a_status(self, lab: CommitLab) -> None:
        _, desk, committer = lab.joined()
        states = st.sampled_from([TaskState.QUEUED, TaskState.RUNNING, TaskState.RETRYING])
        tops = st.builds(StatusUpdate, id=st.just("x"), state=states, attempt=st.integers(0, 2),
                         meta=st.dictionaries(st.sampled_from("ab"), st.integers(0, 2)))  # fmt: skip

        @self.budget.property()
        @given(st.lists(st.lists(tops, min_size=1, max_size=3), max_size=4))
        def law(steps: list[list[StatusUpdate]]) -> None:
            id = unique("s")
            status: TaskStatus | None = None
            real = [[_renamed(update, id) for update in step] for step in steps]
            answers = lab.commit(committer, *(Step(updates=tuple(step)) for step in real))
            check(all(answers), 30, f"a non-terminal refusal refused a step: {answers}")
            for step in real:
                for update in step:
                    status = merge(status, update) or status
            check(same(desk.one(id), status), 32, f"{real} left {desk.one(id)}, expected {status}")

        law()

    def test_law_32_publishes_wake_and_results_wake(self, lab: CommitLab) -> None:
        client, desk, committer = lab.joined()

        async def work() -> tuple[Sequence[Delivery], TaskStatus | None]:
            receive = asyncio.ensure_future(
                client.broker.receive([lab.queue], limit=1, lease=LONG, wait=60.0)
            )
            wait = asyncio.ensure_future(desk.backend.wait("t", 60.0))
            await asyncio.sleep(0.05)
            await committer.commit([Step(updates=(done("t"),), publishes=(lab.message(),))])
            return await asyncio.wait_for(asyncio.gather(receive, wait), self.prompt)

        try:
            deliveries, status = lab.driver.run(work())
        except TimeoutError:
            check(False, 32, f"a commit woke nobody within {self.prompt} s")
        else:
            check(len(deliveries) == 1 and status is not None, 32, f"{deliveries}, {status}")

    def test_law_32_delays_and_retries_wait(self, lab: CommitLab) -> None:
        client, _, committer = lab.joined()
        delay = lab.pace.lease
        delivery = lab.leased(client)
        publishes = (lab.message("late", delay=delay),) if self.broker.capabilities.delay else ()
        step = Step(settlement=Settlement(delivery.receipt, Retry(delay)), publishes=publishes)
        expect(lab.commit(committer, step), [True], 30, "a step that retries with a delay answered False")
        begun = lab.driver.time.now()
        if client.receive([lab.queue, "late"]) and lab.driver.time.now() < begun + delay / 2:
            check(False, 7, "a delay given in a step was not kept")
        lab.outlive(delay)
        found = client.drain([lab.queue, "late"])
        check(len(found) == 1 + len(publishes), 7, f"after a delay of {delay} s: expected {1 + len(publishes)} messages, "
              f"got {found}")  # fmt: skip
        again = next((each for each in found if each.message.id == delivery.message.id), None)
        check(
            again is not None and (again.attempt, again.deliveries) == (1, 1),
            7,
            f"retried in a step: {again}",
        )

    def test_law_32_another_store_is_not_joined(self, lab: CommitLab) -> None:
        client, _, _ = lab.joined()
        stranger = lab.desk(namespace=unique())
        check(client.broker.join(stranger.backend) is None, 32, "a backend of another namespace was joined")


class _Joined:
    """A broker, a backend and their committer, closed together."""

    def __init__(self, broker: Broker, backend: Backend, committer: Committer) -> None:
        self.broker, self.backend, self.committer = broker, backend, committer

    async def close(self) -> None:
        await self.broker.close()
        await self.backend.close()


def _ids(calls: Sequence[Callback]) -> list[str]:
    return [call.message.id for call in calls]


def _renamed(update: StatusUpdate, id: str) -> StatusUpdate:
    fields = {name: getattr(update, name) for name in StatusUpdate.__struct_fields__}
    return StatusUpdate(**{**fields, "id": id})
