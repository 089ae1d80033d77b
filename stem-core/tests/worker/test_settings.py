"""Arguments of a Worker: what is wrong is refused by its name when it is made, not when it runs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from stem_core import ConfigurationError, Stem, Worker


def connect(state: dict[str, Any]) -> None:
    state["connected"] = True


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("concurrency", ["5", True, 1.5, None, [5]], "must be a whole number"),
        ("concurrency", [0, -1], "must be at least 1"),
        ("concurrency", [10**30], "must be at most"),
        ("threads", ["5", True, None], "must be a whole number"),
        ("processes", ["5", True, 1.5], "must be a whole number"),
        ("prefetch", ["5", True, 1.5], "must be a whole number"),
        ("prefetch", [-1], "must be at least 0"),
        ("max_deliveries", ["5", None, 0.5], "must be a whole number"),
        ("max_tasks", ["5", True, 1.5], "must be a whole number"),
        ("max_tasks_per_child", ["5"], "must be a whole number"),
        ("max_memory", ["512M", 1.5, True], "must be a whole number of bytes"),
        ("max_memory", [0], "at least 1 byte"),
        ("lease", ["30", None, True, []], "must be seconds or a timedelta"),
        ("lease", [0, timedelta(0)], "must be longer than 0 seconds"),
        ("lease", [-1, float("nan"), float("inf"), 1e30], "is not a duration"),
        ("wait", ["2", None, True], "must be seconds or a timedelta"),
        ("drain_timeout", ["25", None, True], "must be seconds or a timedelta"),
        ("drain_timeout", [-1, float("nan"), float("inf")], "is not a duration"),
        ("unknown_task_grace", ["60", None, True], "must be seconds or a timedelta"),
        ("queue_order", ["random", 1], "neither 'rotate' nor 'strict'"),
        ("queues", [None, 5], r"write queues=\['default', 'mail'\]"),
        ("queues", [[]], "name at least one"),
        ("queues", [["a", "b", "a"]], "names 'a' twice"),
        ("queues", [{"a": "2"}, {"a": True}], "must be a whole number"),
        ("on_startup", [connect], r"write on_startup=\[connect\]"),
        ("on_startup", ["connect", None, [1], ["connect"], 5, {"connect": connect}], "must be several functions"),
        ("on_shutdown", [connect], r"write on_shutdown=\[connect\]"),
        ("name", [5, b"x"], "must be text or None"),
        ("encoders", ["cbor", 5], "must be a TaskPayloadEncoderRegistry"),
    ],
)  # fmt: skip
def test_a_setting_of_the_wrong_kind(name: str, values: list[Any], words: str) -> None:
    for value in values:
        with pytest.raises((TypeError, ValueError), match=f"{name}.*{words}"):
            Worker(Stem("memory://"), **{name: value})


def test_what_is_no_name() -> None:
    with pytest.raises(ValueError, match=r"'a\\n' cannot be a worker's name"):
        Worker(Stem("memory://"), name="a\n")
    for queue in ("", "a\n", 5):
        with pytest.raises(ValueError, match=f"{queue!r} cannot be a queue name".replace("\\", r"\\")):
            Worker(Stem("memory://"), queues=[queue])  # type: ignore[list-item]


def test_what_is_no_stem() -> None:
    for given in ("memory://", None, 5):
        with pytest.raises(TypeError, match=r"must be a Stem: write Worker\(Stem\("):
            Worker(given)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["args_encoder", "result_encoder"])
def test_an_encoder_that_is_not_installed_is_missed_at_once(name: str) -> None:
    with pytest.raises(ConfigurationError, match="No encoder for 'nope'"):
        Worker(Stem("memory://"), **{name: "nope"})  # type: ignore[arg-type]


def test_what_is_right() -> None:
    worker = Worker(
        Stem("memory://"),
        queues=(name for name in ("a", "b")),  # type: ignore[arg-type]
        lease=timedelta(seconds=30),
        drain_timeout=0,
        prefetch=0,
        on_startup=(connect,),
        name="one",
    )
    assert worker.settings.queues == ("a", "b")
    assert (worker.settings.lease, worker.settings.drain_timeout, worker.id) == (30.0, 0.0, "one")
    assert Worker(Stem("memory://"), queues="mail").settings.queues == ("mail",)
