"""Laws 30 and 31: a step is all or nothing, and leaves the others of its batch alone."""

from __future__ import annotations

import pytest

from stem_core.contracts.backend.groups import callback
from stem_core.contracts.committer.base import GOOD, CommitLab, CommitterBase, done, running
from stem_core.contracts.laws import check, expect
from stem_core.contracts.pace import LONG
from stem_core.contracts.punctual import punctual
from stem_core.envelope import Ack, DeadLetter, Release, Retry, Settlement
from stem_core.errors import PayloadTooLarge
from stem_core.ports.backend import GroupOutcome
from stem_core.ports.committer import Step
from stem_core.status import StatusUpdate, TaskState

__all__ = ["StepLaws"]


class StepLaws(CommitterBase):
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
        expect(lab.commit(committer, step), [True], 30, "a good step answered False")
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
        expect(lab.commit(committer, step), [False], 30, f"a step with a {why} answered True")
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
        expect(lab.commit(committer, step, again), [True, False], 30, "one receipt in two steps of a batch")
        expect(lab.commit(committer, again), [False], 30, "one receipt in two commits")
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
        expect(lab.commit(committer, step), [True], 30, "a refused non-terminal update refused the step")
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
        expect(lab.commit(committer, *steps), [True, False, True], 30, "updates of one task in one step")
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
        expect(lab.commit(committer, *steps), wanted, 31, "good, stale and refused in turn")
        found = sorted(delivery.message.id for delivery in client.drain("children"))
        check(found == ["child-0", "child-3"], 31, f"children {found}")
        states = [status is not None for status in desk.fetch(*(f"t{n}" for n in range(6)))]
        check(states == wanted, 31, f"statuses {states}, expected {wanted}")
        check(client.stats(lab.queue).leased == 4, 31, f"2 of 6 were done: {client.stats(lab.queue)}")
