"""Pytest fixtures, off until asked for: ``pytest_plugins = ["stem_core.testing.fixtures"]`` in a ``conftest.py``.

``stem``          to be overridden: the application's Stem
``fake_stem``     a :class:`FakeStem` around ``stem``, entered
``inline_stem``   ``run_inline(stem)``, to be entered by the test: ``async with inline_stem: ...``
``task_context``  :func:`fake_context`
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from stem_core.producer import Stem
from stem_core.testing.context import FakeContext
from stem_core.testing.context import fake_context as make_context
from stem_core.testing.fake import FakeStem
from stem_core.testing.inline import Inline, run_inline

__all__ = ["fake_stem", "inline_stem", "stem", "task_context"]


@pytest.fixture
def stem() -> Stem:
    """The application's Stem."""
    raise pytest.UsageError(
        "the fixture 'stem' is yours to write: @pytest.fixture def stem(): return your_application.stem"
    )


@pytest.fixture
def fake_stem(stem: Stem) -> Iterator[FakeStem]:
    """Records what the application enqueues, and runs nothing."""
    with FakeStem(stem) as fake:
        yield fake


@pytest.fixture
def inline_stem(stem: Stem) -> Inline:
    """Runs the application's tasks in the test's loop, once entered."""
    return run_inline(stem)


@pytest.fixture
def task_context() -> Callable[..., FakeContext]:
    """Makes contexts to call handlers with."""
    return make_context
