"""The contract a broker's tests subclass."""

from __future__ import annotations

from hypothesis.stateful import run_state_machine_as_test

from stem_core.contracts.broker.concurrency import ConcurrencyLaws
from stem_core.contracts.broker.dead import DeadLetterLaws
from stem_core.contracts.broker.extras import ExtraLaws
from stem_core.contracts.broker.leases import LeaseLaws
from stem_core.contracts.broker.machine import broker_machine
from stem_core.contracts.broker.order import OrderLaws
from stem_core.contracts.broker.publishing import PublishingLaws
from stem_core.contracts.broker.waiting import WaitingLaws

__all__ = ["BrokerContract"]


class BrokerContract(
    PublishingLaws, LeaseLaws, OrderLaws, DeadLetterLaws, WaitingLaws, ConcurrencyLaws, ExtraLaws
):
    """Laws 1 to 19. Subclass it, set ``spec``, override the fixture ``url``, run pytest::

        class TestMyBroker(BrokerContract):
            spec = MY_BROKER

            @pytest.fixture
            def url(self):
                return "my://localhost/" + unique_name()

    The suite opens the URL as often as it likes, in namespaces of its own. Capabilities come from the
    spec: what is declared is tested, what is not must be refused. What else can be set:

    - ``clock``: True when the adapter lives by ``AdapterOptions.clock``; then no test waits. For a store whose
      clock tests can move by other means override :meth:`time`.
    - ``profile``: "quick" or "full"; else ``STEM_CONTRACT_PROFILE`` says, else quick.
    - ``lease``: seconds of a short lease (0.3, or more for a coarse ``resolution``; 10 with a clock).
    - ``settle``: seconds a call may take to show what is due (0.2; 0 with a clock).
    - ``skew``: seconds by which the store's clock may differ from this machine's (0).
    - ``prompt``: seconds within which a waiting call must wake up (10; only a broken adapter needs them).

    - fixture ``outage``: a function that gives a context manager in which the store cannot be reached (law 15).

    - fixture ``connect``: opens a caller's own connection, for ``transactional_publish`` (law 19).

    A known deviation is an overridden test that calls ``pytest.xfail("reason")`` under ``xfail_strict``.
    """

    def test_agrees_with_the_model(self, url: str) -> None:
        """Any history: laws 1 to 12 and 14, 17."""
        settings = self.budget.machine(exact=self.time().exact)
        run_state_machine_as_test(
            broker_machine(lambda: self.make_lab(url, once_ttl=30.0)), settings=settings
        )
