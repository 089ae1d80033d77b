"""``fake_context``, and the fixtures, which are off until asked for."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stem_core import Stem, StemError, TaskContext
from stem_core.context import RetryTask
from stem_core.testing import fake_context

stem = Stem("memory://")


@stem.task(max_retries=3)
async def report(ctx: TaskContext, rows: int) -> str:
    if ctx.attempt < 2:
        raise ctx.retry(countdown=30)
    await ctx.heartbeat()
    await ctx.extend_lease(60)
    await ctx.progress(50, {"rows": rows})
    await ctx.enqueue(follow.call(rows))
    return f"{ctx.headers['tenant']} {ctx.state['pool']}"


@stem.task
def follow(rows: int) -> None: ...


async def test_a_handler_is_called_with_a_fake_context() -> None:
    ctx = fake_context(attempt=2, headers={"tenant": "acme"}, state={"pool": "p"})
    assert await report(ctx, 7) == "acme p"
    assert (ctx.recorded.heartbeats, ctx.recorded.leases) == (1, [60.0])
    assert [(each.percent, each.data) for each in ctx.recorded.progress] == [(50.0, {"rows": 7})]
    assert [(each.name, tuple(each.args)) for each in ctx.recorded.enqueued] == [(follow.name, (7,))]


async def test_a_retry_is_raised_and_seen() -> None:
    with pytest.raises(RetryTask) as caught:
        await report(fake_context(attempt=0), 7)
    assert caught.value.request.delay == 30.0


async def test_a_handle_of_a_fake_context_says_what_it_is() -> None:
    handle = await fake_context().enqueue(follow.call(1))
    with pytest.raises(StemError, match="fake_context"):
        await handle.result(timeout=1)


TESTS = """
import pytest
from stem_core import Stem

app = Stem("redis://localhost:1/0")

@app.task(name="mail.send")
async def send(to: str) -> str:
    return to

@pytest.fixture
def stem():
    return app

def test_fake(fake_stem):
    send.enqueue_sync("a@example.com")
    fake_stem.assert_enqueued("mail.send", to="a@example.com")

def test_inline(inline_stem):
    import asyncio

    async def work():
        async with inline_stem:
            return await (await send.enqueue("b")).result(timeout=10)

    assert asyncio.run(work()) == "b"

def test_context(task_context):
    assert task_context(attempt=3).attempt == 3
"""


@pytest.mark.parametrize("asked_for", [True, False])
def test_fixtures_are_there_when_asked_for(tmp_path: Path, asked_for: bool) -> None:
    (tmp_path / "test_app.py").write_text(TESTS)
    plugins = 'pytest_plugins = ["stem_core.testing.fixtures"]' if asked_for else ""
    (tmp_path / "conftest.py").write_text(plugins)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    expected = "3 passed" if asked_for else "3 errors"
    assert expected in done.stdout, done.stdout + done.stderr
    assert asked_for or "fixture 'fake_stem' not found" in done.stdout


@pytest.mark.parametrize(
    ("call", "args", "words"),
    [
        ("mail.send", "abc", "args='abc' of task 'mail.send' must be a mapping"),
        ("mail.send", {1: "one"}, "args of task 'mail.send' has the key 1"),
        ("mail.send", 5, "args=5"),
        (follow, [1], "write task.call"),
        (follow.call(1), [2], "goes with a task's name"),
    ],
)
async def test_what_a_running_task_enqueues_is_a_call_or_a_name(call: Any, args: Any, words: str) -> None:
    ctx = fake_context()
    with pytest.raises(TypeError, match=re.escape(words)):
        await ctx.enqueue(call, args)
    with pytest.raises(TypeError, match=re.escape(words)):
        ctx.enqueue_sync(call, args)


async def test_progress_is_a_number_of_percent() -> None:
    ctx = fake_context()
    for wrong, error in (("50", TypeError), (True, TypeError), (101, ValueError), (float("nan"), ValueError)):
        with pytest.raises(error, match=f"percent={wrong!r} "):
            await ctx.progress(wrong)  # type: ignore[arg-type]
    assert ctx.recorded.progress == []
