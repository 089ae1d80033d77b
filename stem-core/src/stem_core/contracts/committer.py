"""The contract a committer's tests subclass: one store for broker and backend."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from functools import partial
from typing import ClassVar

import hypothesis.strategies as st
import pytest
from hypothesis import given

from stem_core.contracts.backend.groups import callback
from stem_core.contracts.backend.lab import Desk
from stem_core.contracts.broker.lab import BrokerLab, Client
from stem_core.contracts.concurrently import together
from stem_core.contracts.driver import Driver, unique
from stem_core.contracts.laws import check
from stem_core.contracts.pace import LONG, Pace
from stem_core.contracts.profile import Profile, choose
from stem_core.contracts.punctual import punctual
from stem_core.contracts.strategies import same
from stem_core.contracts.time import ManualTime, RealTime, Time
from stem_core.envelope import Ack, DeadLetter, Delivery, Release, Retry, Settlement
from stem_core.errors import PayloadTooLarge
from stem_core.ports.backend import Backend, Callback, GroupOutcome, Outcome
from stem_core.ports.broker import Broker
from stem_core.ports.committer import Committer, Step
from stem_core.ports.specs import BackendSpec, BrokerSpec
from stem_core.status import StatusUpdate, TaskError, TaskState, TaskStatus, merge

__all__ = ["CommitterContract"]

GOOD = Outcome(TaskState.SUCCEEDED, b"\0good", "json")
BAD = Outcome(TaskState.FAILED, error=TaskError("E", "bad"))


class CommitLab(BrokerLab):
    """A broker, a backend and the committer that joins them, in one namespace."""

    def __init__(
        self, driver: Driver, broker: BrokerSpec, backend: BackendSpec, url: str, backend_url: str, pace: Pace
    ) -> None:
        super().__init__(driver, broker, url, pace)
        self.backend_spec = backend
        self.backend_url = backend_url

    def desk(self, *, namespace: str | None = None) -> Desk:
        return Desk(
            self.driver, self.driver.backend(self.backend_spec, self.backend_url, namespace=namespace)
        )

    def joined(self) -> tuple[Client, Desk, Committer]:
        """An open broker and backend, and their committer, which must be there."""
        client, desk = self.client(), self.desk()
        committer = client.broker.join(desk.backend)
        if committer is None:
            pytest.fail(
                f"{self.spec.name} does not join {self.backend_spec.name} at one URL; it has no committer"
            )
        return client, desk, committer

    def commit(self, committer: Committer, *steps: Step) -> list[bool]:
        answers = list(self.driver.run(committer.commit(steps)))
        check(len(answers) == len(steps), 30, f"{len(steps)} steps, {len(answers)} answers")
        return answers

    def leased(self, client: Client) -> Delivery:
        """A fresh message, leased."""
        client.publish(self.message())
        return client.one(self.queue)


def running(id: str) -> StatusUpdate:
    return StatusUpdate(id=id, state=TaskState.RUNNING, name="n")


def done(id: str, state: TaskState = TaskState.SUCCEEDED, payload: bytes | None = b"\0r") -> StatusUpdate:
    return StatusUpdate(id=id, state=state, payload=payload, encoder="json")


class CommitterContract:
    """Laws 30 to 32. Subclass it, set ``broker`` and ``backend``, override the fixture ``url``::

        class TestMyCommitter(CommitterContract):
            broker, backend = MY_BROKER, MY_BACKEND

            @pytest.fixture
            def url(self): return "my://localhost/" + unique_name()

    The fixture ``backend_url`` is ``url`` unless overridden. Settings are those of ``BrokerContract``.
    """

    broker: ClassVar[BrokerSpec]
    backend: ClassVar[BackendSpec]
    clock: ClassVar[bool] = False
    profile: ClassVar[str | Profile | None] = None
    lease: ClassVar[float | None] = None
    settle: ClassVar[float | None] = None
    skew: ClassVar[float] = 0.0
    prompt: ClassVar[float] = 10.0

    @pytest.fixture
    def url(self) -> str:
        """The URL of a store of its own. Override it."""
        raise NotImplementedError(f"{type(self).__name__} must override the fixture 'url'")

    @pytest.fixture
    def backend_url(self, url: str) -> str:
        return url

    def time(self) -> Time:
        """The time one lab lives by; override it when your store's clock can be moved."""
        return ManualTime() if self.clock else RealTime()

    @property
    def budget(self) -> Profile:
        return choose(self.profile)

    def make_lab(self, url: str, backend_url: str) -> CommitLab:
        """A lab in a namespace of its own; close its driver."""
        time = self.time()
        pace = Pace(
            exact=time.exact,
            resolution=self.broker.capabilities.resolution,
            lease=self.lease,
            settle=self.settle,
            skew=self.skew,
            prompt=self.prompt,
        )
        return CommitLab(Driver(time), self.broker, self.backend, url, backend_url, pace)

    @pytest.fixture
    def lab(self, url: str, backend_url: str) -> Iterator[CommitLab]:
        """A lab for one test."""
        lab = self.make_lab(url, backend_url)
        with lab.driver:
            yield lab

    def needs_groups(self) -> None:
        if not self.backend.capabilities.groups:
            pytest.skip("not declared: groups")

    # all or nothing

    def test_law_30_a_step_does_all_of_it(self, lab: CommitLab) -> None:
        client, desk, committer = lab.joined()
        delivery = lab.leased(client)
        id = delivery.message.id
        child = lab.message("children", once=True)
        step = Step(
            settlement=Settlement(delivery.receipt, Ack()),
            updates=(running(id), done(id), StatusUpdate(id=child.id, state=TaskState.QUEUED)),
            publishes=(child, lab.message("children")),
        )
        check(lab.commit(committer, step) == [True], 30, "a good step answered False")
        stats = client.stats(lab.queue)
        check(stats.leased == stats.ready == 0, 30, f"the settlement was not done: {stats}")
        found = desk.one(id)
        check(
            found is not None and found.payload == b"\0r" and found.name == "n",
            30,
            f"the updates left {found}",
        )
        check(len(client.drain("children")) == 2, 30, "the publishes were not done")
        check(desk.one(child.id) is not None, 30, "a queued row was not written")

    def test_law_30_nothing_is_a_step_too(self, lab: CommitLab) -> None:
        _, _, committer = lab.joined()
        check(lab.commit(committer) == [] and lab.commit(committer, Step()) == [True], 30, "an empty step")

    @pytest.mark.parametrize("why", ["stale-receipt", "refused-end", "refused-end-last"])
    @punctual
    def test_law_30_a_refused_step_does_nothing(self, lab: CommitLab, why: str) -> None:
        client, desk, committer = lab.joined()
        desk.record(done("over", payload=b"first"))
        if self.backend.capabilities.groups:
            desk.group_create("g", ["a"], callback())
        client.publish(lab.message())
        delivery = client.one(lab.queue, lease=lab.pace.lease if why == "stale-receipt" else LONG)
        if why == "stale-receipt":
            lab.outlive(lab.pace.lease)
            live = client.one(lab.queue)
            end: tuple[StatusUpdate, ...] = ()
        else:
            live, end = delivery, (done("over", TaskState.FAILED, b"second"),)
        updates = (
            (running("fresh"), done("other"), *end) if why != "refused-end" else (*end, running("fresh"))
        )
        step = Step(
            settlement=Settlement(delivery.receipt, Ack()),
            updates=updates,
            publishes=(lab.message("children"), lab.message("children", once=True)),
            outcomes=(GroupOutcome("g", "a", GOOD),) if self.backend.capabilities.groups else (),
        )
        check(lab.commit(committer, step) == [False], 30, f"a step with a {why} answered True")
        check(desk.fetch("fresh", "other") == [None, None], 30, f"a {why} wrote statuses")
        found = desk.one("over")
        check(
            found is not None and found.payload == b"first", 30, f"a {why} changed an ended status: {found}"
        )
        client.nothing("children", 30, f"a step with a {why} was refused")
        stats = client.stats(lab.queue)
        check((stats.leased, stats.ready) == (1, 0), 30, f"a {why} settled: {stats}")
        check(client.end(live, Release()), 30, f"a {why} took the lease of somebody else")
        if self.backend.capabilities.groups:
            group = desk.group_get("g")
            check(group is not None and not group.outcomes, 30, f"a {why} added an outcome")
            client.nothing("callbacks", 30, f"a step with a {why} was refused")

    @pytest.mark.parametrize(
        "action", [Ack(), Retry(), Release(), DeadLetter("rejected")], ids=lambda a: type(a).__name__
    )
    def test_law_30_a_receipt_is_used_once(
        self, lab: CommitLab, action: Ack | Retry | Release | DeadLetter
    ) -> None:
        client, desk, committer = lab.joined()
        delivery = lab.leased(client)
        step = Step(settlement=Settlement(delivery.receipt, action), updates=(running("a"),))
        again = Step(settlement=Settlement(delivery.receipt, action), updates=(running("b"),))
        check(lab.commit(committer, step, again) == [True, False], 30, "one receipt in two steps of a batch")
        check(lab.commit(committer, again) == [False], 30, "one receipt in two commits")
        check(not client.end(delivery), 30, "a receipt that a step used was settled again")
        check(desk.one("a") is not None and desk.one("b") is None, 30, "the second step wrote something")

    def test_law_30_other_refusals_change_nothing_else(self, lab: CommitLab) -> None:
        """A refused non-terminal update, and a once id that is known."""
        client, desk, committer = lab.joined()
        known = lab.message("children", once=True)
        client.publish(known)
        desk.record(running("run"), done("over"))
        delivery = lab.leased(client)
        step = Step(
            settlement=Settlement(delivery.receipt, Ack()),
            updates=(
                StatusUpdate(id="run", state=TaskState.QUEUED, meta={"no": 1}),
                StatusUpdate(id="over", state=TaskState.RUNNING),
                done("new"),
            ),
            publishes=(known, lab.message("children", once=True)),
        )
        check(lab.commit(committer, step) == [True], 30, "a refused non-terminal update refused the step")
        run, over, new = desk.fetch("run", "over", "new")
        check(run is not None and run.state is TaskState.RUNNING and not run.meta, 30, f"run became {run}")
        check(over is not None and over.state is TaskState.SUCCEEDED, 30, f"over became {over}")
        check(new is not None, 30, "an update beside refused ones was not written")
        check(len(client.drain("children")) == 2, 30, "a known once id was added, or its neighbour was not")
        check(client.stats(lab.queue).leased == 0, 30, "the settlement was not done")

    def test_law_30_updates_of_one_task_follow_each_other(self, lab: CommitLab) -> None:
        """Within a step the second sees the first."""
        _, desk, committer = lab.joined()
        steps = (
            Step(updates=(running("a"), done("a"), StatusUpdate(id="a", state=TaskState.QUEUED))),
            Step(updates=(done("b", payload=b"1"), done("b", payload=b"2"))),
            Step(updates=(done("c"), StatusUpdate(id="c", state=TaskState.QUEUED, generation=1))),
        )
        check(lab.commit(committer, *steps) == [True, False, True], 30, "updates of one task in one step")
        a, b, c = desk.fetch("a", "b", "c")
        check(a is not None and a.state is TaskState.SUCCEEDED and a.name == "n", 30, f"a became {a}")
        check(b is None, 30, f"two ends of one task in a step: {b}")
        check(c is not None and (c.state, c.generation) == (TaskState.QUEUED, 1), 30, f"c became {c}")

    def test_law_30_too_large_stores_nothing(self, lab: CommitLab) -> None:
        limit = self.broker.capabilities.max_size
        if limit is None:
            pytest.skip("not declared: max_size")
        client, desk, committer = lab.joined()
        steps = (Step(updates=(running("a"),)), Step(publishes=(lab.message(sealed=bytes(limit + 1)),)))
        with pytest.raises(PayloadTooLarge):
            lab.commit(committer, *steps)
        check(desk.one("a") is None, 30, "a step beside one that is too large was done")
        client.nothing(lab.queue, 30, "too large")

    # the others of the batch

    @punctual
    def test_law_31_a_refused_step_leaves_the_others(self, lab: CommitLab) -> None:
        client, desk, committer = lab.joined()
        desk.record(done("over"))
        client.publish(*lab.messages(6))
        stale = client.receive(lab.queue, limit=1, lease=lab.pace.lease)
        lab.outlive(lab.pace.lease)
        live = client.drain(lab.queue)
        check(len(live) == 6, 4, f"6 are ready, {len(live)} came")
        steps, wanted = [], []
        for number, delivery in enumerate(live):
            bad = number % 3
            receipt = stale[0].receipt if bad == 1 else delivery.receipt
            end = done("over", TaskState.FAILED) if bad == 2 else done(f"t{number}")
            steps.append(
                Step(
                    settlement=Settlement(receipt, Ack()),
                    updates=(end,),
                    publishes=(lab.message("children", id=f"child-{number}", once=True),),
                )
            )
            wanted.append(not bad)
        check(
            lab.commit(committer, *steps) == wanted, 31, f"good, stale and refused in turn, expected {wanted}"
        )
        found = sorted(delivery.message.id for delivery in client.drain("children"))
        check(found == ["child-0", "child-3"], 31, f"children {found}")
        states = [status is not None for status in desk.fetch(*(f"t{n}" for n in range(6)))]
        check(states == wanted, 31, f"statuses {states}, expected {wanted}")
        check(client.stats(lab.queue).leased == 4, 31, f"2 of 6 were done: {client.stats(lab.queue)}")

    # the other laws, this way

    def test_law_32_a_callback_is_published_by_the_step_that_completes_it(self, lab: CommitLab) -> None:
        self.needs_groups()
        client, desk, committer = lab.joined()
        calls = callback(2)
        desk.group_create("g", ["a", "b"], calls)
        check(
            lab.commit(committer, Step(outcomes=(GroupOutcome("g", "a", GOOD),))) == [True], 32, "an outcome"
        )
        client.nothing("callbacks", 24, "one of two members is done")
        check(desk.fetch(*_ids(calls)) == [None, None], 24, "a queued row before the group is complete")
        last = Step(outcomes=(GroupOutcome("g", "b", GOOD),), updates=(done("b"),))
        for _ in range(2):  # a repeat publishes nothing twice
            check(lab.commit(committer, Step(outcomes=last.outcomes)) == [True], 32, "the last outcome")
        self._called(lab, client, desk, calls)
        check(desk.group_add("g", "b", GOOD).complete, 24, "the group does not know who completed it")

    def test_law_32_a_failed_member_publishes_the_callback_at_once(self, lab: CommitLab) -> None:
        self.needs_groups()
        client, desk, committer = lab.joined()
        calls = callback()
        desk.group_create("g", ["a", "b", "c"], calls)
        both = Step(outcomes=(GroupOutcome("g", "a", GOOD), GroupOutcome("g", "b", BAD)))
        check(
            lab.commit(committer, both, Step(outcomes=(GroupOutcome("g", "c", BAD),))) == [True, True],
            32,
            "outcomes",
        )
        self._called(lab, client, desk, calls)
        group = desk.group_get("g")
        check(group is not None and group.completed_by == "b" and len(group.outcomes) == 3, 24, f"{group}")

    def test_law_32_a_callback_that_is_known_changes_nothing_else(self, lab: CommitLab) -> None:
        """Its message was published and its status went on before: the queued row must not go back."""
        self.needs_groups()
        client, desk, committer = lab.joined()
        calls = callback()
        desk.group_create("g", ["a"], calls)
        client.publish(calls[0].message)
        desk.record(running(calls[0].message.id))
        check(
            lab.commit(committer, Step(outcomes=(GroupOutcome("g", "a", GOOD),))) == [True],
            32,
            "a known callback",
        )
        found = desk.one(calls[0].message.id)
        check(
            found is not None and found.state is TaskState.RUNNING, 20, f"a running callback became {found}"
        )
        lab.advance(1.0)
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
        for _ in range(max(2, self.budget.races // 5)):
            id, calls = unique("g"), callback()
            members = [f"{id}.{n}" for n in range(6)]
            desk.group_create(id, members, calls)

            async def opened() -> _Joined:
                broker = self.broker.open(lab.url, lab.driver.options())
                backend = self.backend.open(lab.backend_url, lab.driver.options())
                await broker.open()
                await backend.open()
                committer = broker.join(backend)
                assert committer is not None
                return _Joined(broker, backend, committer)

            works = [partial(_finish, id, member) for member in members]
            answers = together(
                opened, works, threads=self.broker.capabilities.multi_process, run=lab.driver.run
            )
            check(all(answers), 32, f"members at once answered {answers}")
            found = [each.message.id for each in client.drain("callbacks")]
            check(found == _ids(calls), 32, f"{_ids(calls)} came as {found}")
            check(desk.one(found[0]) is not None, 32, "a callback without its queued row")

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
        check(lab.commit(committer, step) == [True], 30, "Retry with a delay")
        begun = lab.driver.time.now()
        if client.receive([lab.queue, "late"]) and lab.driver.time.now() < begun + delay / 2:
            check(False, 7, "a delay given in a step was not kept")
        lab.outlive(delay)
        found = client.drain([lab.queue, "late"])
        check(len(found) == 1 + len(publishes), 7, f"after their delay came {found}")
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


async def _finish(id: str, member: str, joined: _Joined) -> bool:
    step = Step(updates=(done(member),), outcomes=(GroupOutcome(id, member, GOOD),))
    return (await joined.committer.commit([step]))[0]


def _ids(calls: Sequence[Callback]) -> list[str]:
    return [call.message.id for call in calls]


def _renamed(update: StatusUpdate, id: str) -> StatusUpdate:
    fields = {name: getattr(update, name) for name in StatusUpdate.__struct_fields__}
    return StatusUpdate(**{**fields, "id": id})
