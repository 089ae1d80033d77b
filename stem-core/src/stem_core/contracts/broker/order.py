"""Law 9: priorities, publish order, and turns."""

from __future__ import annotations

from collections import Counter

import hypothesis.strategies as st
from hypothesis import given

from stem_core.contracts.broker.base import BrokerBase
from stem_core.contracts.broker.lab import BrokerLab
from stem_core.contracts.driver import unique
from stem_core.contracts.laws import check
from stem_core.contracts.punctual import punctual
from stem_core.envelope import Retry

__all__ = ["OrderLaws"]


class OrderLaws(BrokerBase):
    def test_law_09_the_higher_level_comes_first(self, lab: BrokerLab) -> None:
        self.needs("priority_levels")
        levels = self.spec.capabilities.priority_levels
        client = lab.client()

        @self.budget.property(20)
        @given(st.lists(st.integers(0, levels - 1), min_size=2, max_size=12), st.integers(1, 5))
        def law(priorities: list[int], limit: int) -> None:
            queue = unique("q")
            client.publish(*(lab.message(queue, priority=each) for each in priorities))
            found = [each.message.priority for each in client.drain(queue, limit=limit)]
            check(found == sorted(priorities, reverse=True), 9, f"levels {priorities} came as {found}")

        law()

    @punctual
    def test_law_09_a_level_is_kept_through_retry_and_lost_leases(self, lab: BrokerLab) -> None:
        self.needs("priority_levels")
        top = self.spec.capabilities.priority_levels - 1
        client = lab.client()
        client.publish(lab.message(priority=top))
        client.end(client.one(lab.queue), Retry())
        client.publish(lab.message(priority=0))
        check(client.one(lab.queue, lease=lab.pace.lease).message.priority == top, 9, "Retry lost the level")
        lab.outlive(lab.pace.lease)
        check(client.one(lab.queue).message.priority == top, 9, "a lost lease lost the level")

    def test_law_09_levels_go_before_queues_where_declared(self, lab: BrokerLab) -> None:
        self.needs("global_priority")
        levels = self.spec.capabilities.priority_levels
        client = lab.client()
        queues = [unique("q") for _ in range(3)]
        for priority in range(levels):
            client.publish(lab.message(queues[priority % 3], priority=priority))
        found = [each.message.priority for each in client.drain(queues, limit=2)]
        check(found == sorted(found, reverse=True), 9, f"over three queues the levels came as {found}")

    def test_law_09_equal_queues_take_turns(self, lab: BrokerLab) -> None:
        """No queue of a receive starves: in forty receives of one each of three gets something."""
        client = lab.client()
        queues = [unique("q") for _ in range(3)]
        for queue in queues:
            client.publish(*lab.messages(40, queue))
        served = Counter(client.receive(queues, limit=1)[0].message.queue for _ in range(40))
        check(len(served) == 3, 9, f"40 receives of one message from three full queues gave {dict(served)}")

    def test_law_09_publish_order_where_declared(self, lab: BrokerLab) -> None:
        self.needs("fifo")
        client = lab.client()
        sent = [lab.messages(7) for _ in range(3)]
        for batch in sent:
            client.publish(*batch)
        for limit in (1, 4, 9):
            queue = unique("q")
            order = [message.id for batch in sent for message in batch]
            client.publish(*(lab.message(queue, id=id) for id in order))
            found = [each.message.id for each in client.drain(queue, limit=limit)]
            check(found == order, 9, f"receive(limit={limit}) did not keep the publish order")
