"""Laws 10, 15 and 16 for steps: one namespace, a lost connection, and closing."""

from __future__ import annotations

from stem_core.contracts.backend.groups import callback
from stem_core.contracts.committer.base import GOOD, CommitLab, CommitterBase, done, running
from stem_core.contracts.driver import unique
from stem_core.contracts.laws import LawBroken, broken, check, expect
from stem_core.contracts.outage import Outage, given, recovers
from stem_core.envelope import Ack, Settlement
from stem_core.errors import StemError
from stem_core.ports.backend import GroupOutcome
from stem_core.ports.committer import Step

__all__ = ["StoreLaws"]


class StoreLaws(CommitterBase):
    def test_law_10_steps_stay_in_their_namespace(self, lab: CommitLab) -> None:
        client, desk, committer = lab.joined()
        other, other_desk, other_committer = lab.joined(namespace=lab.driver.namespace + "x")
        grouped = self.backend.capabilities.groups
        if grouped:
            for owner in (desk, other_desk):
                owner.group_create("g", ["a"], callback())
        child = lab.message("children", once=True)
        step = Step(
            updates=(done("t"),),
            publishes=(child,),
            outcomes=(GroupOutcome("g", "a", GOOD),) if grouped else (),
        )
        expect(lab.commit(committer, step), [True], 30, "a good step answered False")
        check(other_desk.one("t") is None, 10, "a step wrote a status into another namespace")
        other.nothing(["children", "callbacks"], 10, "a step in another namespace published")
        if grouped:
            group = other_desk.group_get("g")
            check(group is not None and not group.outcomes, 10, f"a step in another namespace left {group}")
        expect(lab.commit(other_committer, step), [True], 10,
              "what a step did in one namespace refused the same step in another")  # fmt: skip
        for name in ("children", "callbacks") if grouped else ("children",):
            for where, each in (("one", client), ("the other", other)):
                found = len(each.drain(name))
                check(found == 1, 10, f"the same step in two namespaces, and in {where} {found} of 1 message of "
                      f"{name!r} came")  # fmt: skip

    def test_law_15_a_lost_connection_is_an_error_and_ends(
        self, lab: CommitLab, outage: Outage | None
    ) -> None:
        client, desk, committer = lab.joined()

        def step() -> Step:
            return Step(updates=(running(unique("s")),), publishes=(lab.message("children"),))

        recovers(
            lab.driver, given(outage), {"commit": lambda: committer.commit([step()])}, self.prompt + 10.0
        )
        delivery = lab.leased(client)
        last = Step(settlement=Settlement(delivery.receipt, Ack()), updates=(done("last"),))
        expect(lab.commit(committer, last), [True], 15, "after an outage a good step answered False")
        check(desk.one("last") is not None, 15, "after an outage a step answered True and wrote nothing")

    def test_law_16_a_commit_after_close_is_an_error(self, lab: CommitLab) -> None:
        client, desk, committer = lab.joined()
        _, witness, _ = lab.joined()
        lab.driver.run(client.broker.close())
        lab.driver.run(desk.backend.close())
        try:
            lab.commit(committer, Step(updates=(running("late"),)))
        except StemError:
            pass
        except Exception as error:
            raise LawBroken(16, f"commit after close raised {error!r}; it must be a StemError") from error
        else:
            broken(16, "commit answered after broker and backend were closed; it must raise a StemError")
        check(witness.one("late") is None, 16, "a commit after close raised an error, and wrote its status")
