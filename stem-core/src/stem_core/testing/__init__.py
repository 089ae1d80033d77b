"""For the tests of applications: nothing here needs a server, and no clock has to be waited for.

``FakeStem``      records what is enqueued and runs nothing
``run_inline``    runs tasks in the test's own loop, on a clock that the test moves
``fake_context``  a ``TaskContext`` to call a handler with

``pytest_plugins = ["stem_core.testing.fixtures"]`` in a ``conftest.py`` turns the pytest fixtures on.
"""

from stem_core.testing.context import FakeContext, Recorded, fake_context
from stem_core.testing.fake import FakeCall, FakeStem
from stem_core.testing.inline import Inline, run_inline

__all__ = ["FakeCall", "FakeContext", "FakeStem", "Inline", "Recorded", "fake_context", "run_inline"]
