"""Law 20 as the pure function that specifies it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stem_core.status import PUBLISH_FAILED, Progress, StatusUpdate, TaskError, TaskState, TaskStatus, merge

updates = st.builds(
    StatusUpdate,
    id=st.just("a"),
    state=st.sampled_from(TaskState),
    generation=st.integers(0, 2),
    attempt=st.integers(0, 2),
    payload=st.none() | st.binary(max_size=2),
    error=st.none() | st.builds(TaskError, st.just("E"), st.just("m")),
    meta=st.dictionaries(st.sampled_from("kl"), st.integers(0, 3)),
)


def order(value: TaskStatus | StatusUpdate) -> tuple[int, int, int]:
    return value.generation, value.attempt, value.rank


@given(st.lists(updates, max_size=8))
def test_a_status_never_goes_back_and_a_terminal_one_stays_in_its_generation(
    given: list[StatusUpdate],
) -> None:
    current: TaskStatus | None = None
    for update in given:
        new = merge(current, update)
        if new is None:
            assert current is not None
            assert order(update) < order(current) or (
                current.terminal and update.generation == current.generation
            )
            continue
        assert current is None or order(new) >= order(current)
        assert new.payload == update.payload or (
            current is not None and update.payload is None and order(new) == order(current)
        )
        assert dict(new.meta) == {**(current.meta if current else {}), **update.meta}
        current = new


def test_a_refused_publish_is_not_terminal_and_is_replaced() -> None:
    queued = merge(None, StatusUpdate(id="a", state=TaskState.QUEUED, name="t", meta={"k": 1}))
    refused = merge(
        queued,
        StatusUpdate(id="a", state=TaskState.FAILED, reason=PUBLISH_FAILED, error=TaskError("E", "m")),
    )
    assert refused is not None
    assert not refused.terminal
    again = merge(refused, StatusUpdate(id="a", state=TaskState.QUEUED))
    assert again is not None
    assert (again.state, again.error, again.reason, again.name) == (TaskState.QUEUED, None, None, "t")


def test_an_equal_running_update_merges_progress_and_meta() -> None:
    running = merge(None, StatusUpdate(id="a", state=TaskState.RUNNING, meta={"a": 1}))
    more = merge(
        running,
        StatusUpdate(id="a", state=TaskState.RUNNING, meta={"b": 2}, progress=Progress(50.0, {"n": 1})),
    )
    assert more is not None
    assert more.meta == {"a": 1, "b": 2}
    assert more.progress == Progress(50.0, {"n": 1})
