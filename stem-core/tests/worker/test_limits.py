"""Every row of the table of what can be stopped: soft and hard limits, by where a task runs."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import worker_jobs as jobs

from stem_core import Stem, TaskFailed
from stem_core.app import StemApp
from stem_core.errors import ConfigurationError, SoftTimeLimitExceeded
from stem_core.tasks import Task
from stem_core.worker.limits import soft_limit_error


async def ended(task: Task[..., Any], *args: Any, **limits: Any) -> tuple[Any, float]:
    """How the task ended (its result, or its error as text), and after how many seconds of running."""
    async with StemApp.in_memory(tasks=[task], worker={"processes": 1}):
        handle = await task.with_options(**limits).enqueue(*args)
        try:
            result = await handle.result(timeout=30)
        except TaskFailed as error:
            result = f"{error.type}: {error.message}"
        status = await handle.status()
        assert status is not None
        assert status.started_at is not None
        assert status.finished_at is not None
        return result, (status.finished_at - status.started_at).total_seconds()


SOFT = "stem_core.errors.SoftTimeLimitExceeded: the soft time limit of 0.2 s ended"
HARD = "stem_core.TimeLimitExceeded: the hard time limit of 0.2 s ended"


# On the loop


async def test_async_soft_is_thrown_at_the_await() -> None:
    assert (await ended(jobs.sleep_async, 60.0, soft_time_limit=0.2))[0] == "SoftTimeLimitExceeded"


def test_what_is_thrown_pickles_as_the_public_error() -> None:
    error = pickle.loads(pickle.dumps(soft_limit_error(0.2)))
    assert type(error) is SoftTimeLimitExceeded
    assert str(error) == "the soft time limit of 0.2 s ended"


async def test_async_soft_uncaught_is_a_failure() -> None:
    result, _ = await ended(jobs.swallow_async, soft_time_limit=0.2)
    assert result == "swallowed"  # it is a cancellation too, for code that undoes work on one


async def test_async_soft_cannot_reach_blocking_code() -> None:
    result, seconds = await ended(jobs.block_async, 0.5, soft_time_limit=0.1)
    assert result == "blocked"
    assert seconds >= 0.5


async def test_async_hard_cancels() -> None:
    assert (await ended(jobs.sleep_async, 60.0, time_limit=0.2))[0] == HARD


async def test_async_hard_fails_a_task_that_swallows_it() -> None:
    assert (await ended(jobs.swallow_async, time_limit=0.2))[0] == HARD


# In a thread


async def test_thread_soft_arrives_between_bytecodes() -> None:
    assert (await ended(jobs.loop_in_thread, soft_time_limit=0.2))[0] == "SoftTimeLimitExceeded"


async def test_thread_soft_waits_for_blocking_calls() -> None:
    result, seconds = await ended(jobs.sleep_in_thread, 0.6, soft_time_limit=0.2)
    assert result == SOFT
    assert seconds >= 0.6


async def test_thread_soft_can_be_swallowed() -> None:
    assert (await ended(jobs.swallow_in_thread, soft_time_limit=0.1))[0] == "swallowed"


def test_thread_hard_is_refused_when_it_is_declared() -> None:
    stem = Stem("memory://")
    with pytest.raises(ConfigurationError, match="isolation='process', or soft_time_limit"):
        stem.task(isolation="thread", hard_time_limit=3)(jobs.loop_in_thread.function)


# In a process


async def test_process_soft_interrupts_a_sleep() -> None:
    assert (await ended(jobs.sleep_in_process, 60.0, soft_time_limit=0.2))[0] == SOFT


async def test_process_soft_interrupts_a_regular_expression() -> None:
    assert (await ended(jobs.regex_in_process, soft_time_limit=0.2))[0] == SOFT


async def test_process_soft_reaches_async_code() -> None:
    assert (await ended(jobs.sleep_async_in_process, 60.0, soft_time_limit=0.2))[0] == SOFT


async def test_process_hard_kills_a_loop() -> None:
    assert (await ended(jobs.loop_in_process, time_limit=0.2))[0] == HARD


async def test_process_hard_kills_what_ignores_every_signal() -> None:
    assert (await ended(jobs.deaf_in_process, soft_time_limit=0.1, time_limit=0.2))[0] == HARD


async def test_a_hard_limit_given_at_the_publish_takes_a_sync_task_to_a_process() -> None:
    assert (await ended(jobs.sleep_in_thread, 60.0, time_limit=0.2))[0] == HARD
