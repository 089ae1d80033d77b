"""The contract a backend's tests subclass."""

from __future__ import annotations

from hypothesis.stateful import run_state_machine_as_test

from stem_core.contracts.backend.groups import GroupLaws
from stem_core.contracts.backend.machine import backend_machine
from stem_core.contracts.backend.shared import SharedLaws
from stem_core.contracts.backend.statuses import StatusLaws
from stem_core.contracts.backend.waiting import WaitingLaws

__all__ = ["BackendContract"]


class BackendContract(StatusLaws, WaitingLaws, GroupLaws, SharedLaws):
    """Laws 20 to 27. Subclass it, set ``spec``, override the fixture ``url``, run pytest.

    Settings are those of :class:`~stem_core.contracts.BrokerContract`; a backend declares no resolution, so
    ``resolution`` (0.001 s) is set here where a ttl may end later than that.
    """

    def test_agrees_with_the_model(self, url: str) -> None:
        """Any history: laws 20, 21, 23, 24, 25 and 27."""
        settings = self.budget.machine(exact=self.time().exact)
        run_state_machine_as_test(backend_machine(lambda: self.make_lab(url)), settings=settings)
