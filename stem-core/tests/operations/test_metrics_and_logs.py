"""Metrics add up and are rendered; logs are lines, whatever is logged."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stem_core import Stem, TaskContext, TaskRetryPolicy, Worker
from stem_core.context import TaskLogFilter
from stem_core.operations.metrics import BUCKETS, Family, Histogram, merge, render, series
from stem_core.operations.reload import snapshot
from stem_core.worker.logs import JsonFormatter, TextFormatter


@given(st.lists(st.floats(0, 1e6), max_size=50))
def test_a_histogram_counts_every_value_once_and_cumulatively(values: list[float]) -> None:
    histogram = Histogram()
    for value in values:
        histogram.observe(value)
    samples = histogram.samples("h", {})
    assert samples["h_count"] == samples['h_bucket{le="+Inf"}'] == len(values)
    assert samples["h_sum"] == pytest.approx(sum(values))
    for bound in BUCKETS:
        assert samples[f'h_bucket{{le="{bound:g}"}}'] == sum(value <= bound for value in values)


def test_counters_of_processes_add_up_and_shared_gauges_do_not() -> None:
    one = [Family("a", "counter", "", {"a": 1.0}), Family("depth", "gauge", "", {"depth": 7.0}, "max")]
    two = [
        Family("a", "counter", "", {"a": 2.0, "a2": 5.0}),
        Family("depth", "gauge", "", {"depth": 6.0}, "max"),
    ]
    merged = {each.name: each.samples for each in merge([one, two])}
    assert merged == {"a": {"a": 3.0, "a2": 5.0}, "depth": {"depth": 7.0}}
    assert one[0].samples == {"a": 1.0}, "merging changes nothing it was given"


def test_labels_are_escaped() -> None:
    text = render([Family("x", "gauge", "a\nb", {series("x", {"q": 'a"b\\c\nd'}): 0.5})])
    assert text.splitlines() == ["# HELP x a\\nb", "# TYPE x gauge", 'x{q="a\\"b\\\\c\\nd"} 0.5']


def record(message: str, *args: object, **extra: object) -> logging.LogRecord:
    made = logging.getLogger("a.b").makeRecord(
        "a.b", logging.INFO, "f.py", 1, message, args, None, extra=extra
    )
    TaskLogFilter().filter(made)
    return made


@pytest.mark.parametrize(
    "value", [object(), {1: 2}, {"a": {1, 2}}, "\ud800", b"bytes", 10**400, float("nan"), Path("x")]
)
def test_json_lines_hold_whatever_is_logged(value: object) -> None:
    line = JsonFormatter().format(record("saw %r", value, extra_value=value))
    assert "\n" not in line
    entry = json.loads(line)
    assert "extra_value" in entry
    assert "saw" in entry["message"]


def test_json_lines_carry_task_and_exception() -> None:
    try:
        raise ValueError("no reason")
    except ValueError:
        made = record("failed", task_id="t1", attempt=2)
        made.exc_info = sys.exc_info()
    entry = json.loads(JsonFormatter().format(made))
    assert (entry["task_id"], entry["attempt"], entry["level"], entry["logger"]) == ("t1", 2, "info", "a.b")
    assert "ValueError: no reason" in entry["exception"]
    assert "task_name" not in entry


def test_text_lines_name_the_task() -> None:
    assert "[mail.send t1 #2] hello" in TextFormatter().format(
        record("hello", task_id="t1", task_name="mail.send", attempt=2)
    )
    assert TextFormatter().format(record("hello")).endswith("a.b: hello")


def test_only_python_files_of_the_application_are_watched(tmp_path: Path) -> None:
    for name in (
        "app.py",
        "pkg/mod.py",
        ".venv/lib.py",
        "pkg/__pycache__/x.py",
        "node_modules/y.py",
        "a.txt",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = {str(Path(each).relative_to(tmp_path)) for each in snapshot([tmp_path])}
    assert found == {"app.py", "pkg/mod.py"}


async def test_how_a_task_ended_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    stem = Stem("memory://")

    @stem.task(name="fail")
    def fail() -> None:
        raise ValueError("no")

    @stem.task(name="again", max_retries=1, retry_policy=TaskRetryPolicy(default_delay=0.25, jitter=False))
    async def again(ctx: TaskContext) -> None:
        if ctx.attempt == 0:
            raise KeyError("once")

    caplog.set_level(logging.DEBUG, "stem.task")
    async with stem:
        failed, retried = await fail.enqueue(), await again.enqueue()
        late = await fail.with_options(expires=datetime(2020, 1, 1, tzinfo=UTC)).enqueue()
        await Worker(stem).run(until_empty=True)
    ends = {(record.task_id, record.attempt): record for record in caplog.records}  # type: ignore[attr-defined]
    error = ends[failed.id, 0]
    assert (error.levelname, error.getMessage()) == (
        "ERROR",
        "Failed (max-retries-exhausted): ValueError: no",
    )
    assert "in fail" in (error.exc_text or "")
    assert error.exc_text is not None
    assert json.loads(JsonFormatter().format(error))["exception"] == error.exc_text
    assert TextFormatter().format(error).endswith(f"ValueError: no\n{error.exc_text}")
    first, second = ends[retried.id, 0], ends[retried.id, 1]
    assert (first.levelname, first.getMessage()) == (
        "WARNING",
        "Failed, and is tried again in 0.25 s: KeyError: 'once'",
    )
    assert (second.levelname, second.getMessage()[:12]) == ("DEBUG", "Succeeded in")
    assert (ends[late.id, 0].levelname, ends[late.id, 0].getMessage()) == ("INFO", "Was cancelled: expired")


async def test_an_error_steers_no_terminal_through_the_log(caplog: pytest.LogCaptureFixture) -> None:
    stem = Stem("memory://")

    @stem.task(name="quote")
    async def quote(text: str) -> None:
        raise ValueError(f"no {text}")

    async with stem:
        await quote.enqueue("\x1b[31mred\n2026-01-01 INFO all is well\r")
        await Worker(stem).run(until_empty=True)
    (record,) = [each for each in caplog.records if each.name == "stem.task"]
    seen = "ValueError: no \\x1b[31mred\\n2026-01-01 INFO all is well\\r"
    assert record.getMessage().endswith(seen)
    assert all(line.isprintable() for line in TextFormatter().format(record).split("\n"))
