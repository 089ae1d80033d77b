"""The contract a committer's tests subclass: one store for broker and backend."""

from __future__ import annotations

from stem_core.contracts.committer.equally import EqualLaws
from stem_core.contracts.committer.starting import StartLaws
from stem_core.contracts.committer.steps import StepLaws
from stem_core.contracts.committer.store import StoreLaws

__all__ = ["CommitterContract"]


class CommitterContract(StepLaws, EqualLaws, StartLaws, StoreLaws):
    """Laws 30 to 32, and 3, 9, 10, 15 and 16 for steps. Subclass it, set ``broker`` and ``backend``, override the fixture ``url``::

        class TestMyCommitter(CommitterContract):
            broker, backend = MY_BROKER, MY_BACKEND

            @pytest.fixture
            def url(self): return "my://localhost/" + unique_name()

    The fixture ``backend_url`` is ``url`` unless overridden. Settings are those of ``BrokerContract``.
    """
