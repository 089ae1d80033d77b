"""Values as an adapter may meet them, and equality that does not take 1 for True."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import hypothesis.strategies as st

from stem_core.ports.backend import Outcome
from stem_core.status import PUBLISH_FAILED, Progress, StatusUpdate, TaskError, TaskState

__all__ = ["metas", "outcomes", "plain", "same", "texts", "updates"]

#: Any text that UTF-8 can carry.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
printable = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=12)
moments = st.datetimes(datetime(2001, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
floats = st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: str(x) != "-0.0")
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    floats,
    st.sampled_from((0, 1, 0.0, 1.0)),
    texts,
)
#: None, bool, 64-bit int, finite float, str, list, and dict with printable keys.
plain: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(printable, inner, max_size=3)),
    max_leaves=6,
)
metas = st.dictionaries(st.one_of(st.sampled_from(("k", "l", "__stem")), printable), plain, max_size=3)
errors = st.builds(TaskError, printable, texts, st.one_of(st.just(""), texts))
outcomes = st.one_of(
    st.builds(Outcome, st.just(TaskState.SUCCEEDED), st.binary(max_size=8), st.sampled_from((None, "json"))),
    st.builds(
        Outcome,
        st.sampled_from((TaskState.FAILED, TaskState.CANCELLED)),
        st.none(),
        st.none(),
        st.none() | errors,
    ),
)


@st.composite
def updates(
    draw: st.DrawFn, ids: st.SearchStrategy[str], ttls: st.SearchStrategy[float | None]
) -> StatusUpdate:
    """Any update of one of ``ids``."""
    state = draw(st.sampled_from(list(TaskState)))
    reasons: tuple[str | None, ...] = (None, None, "expired")
    if state is TaskState.FAILED:
        reasons = (None, PUBLISH_FAILED, "rejected")
    return StatusUpdate(
        id=draw(ids),
        state=state,
        generation=draw(st.sampled_from((0, 0, 0, 1))),
        attempt=draw(st.integers(0, 2)),
        name=draw(st.one_of(st.none(), printable)),
        queue=draw(st.one_of(st.none(), printable)),
        payload=draw(st.one_of(st.none(), st.binary(max_size=20))),
        encoder=draw(st.sampled_from((None, "json", "cbor+zstd"))),
        error=draw(st.one_of(st.none(), errors)),
        reason=draw(st.sampled_from(reasons)),
        meta=draw(st.one_of(st.just({}), metas)),
        progress=draw(
            st.one_of(st.none(), st.builds(Progress, st.sampled_from((0.0, 0.1, 50.0, 100.0)), plain))
        ),
        enqueued_at=draw(st.one_of(st.none(), moments)),
        started_at=draw(st.one_of(st.none(), moments)),
        finished_at=draw(st.one_of(st.none(), moments)),
        ttl=draw(ttls),
    )


def same(one: Any, other: Any) -> bool:
    """Equal, with equal types all the way down."""
    if isinstance(one, datetime) and isinstance(other, datetime):
        return one == other and one.utcoffset() == other.utcoffset()
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    fields = getattr(type(one), "__struct_fields__", None)
    if fields is not None:
        return all(same(getattr(one, name), getattr(other, name)) for name in fields)
    return bool(one == other)
