"""Routing from code and from TOML: patterns, priority ranges, the default queue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stem_core import (
    ConfigurationError,
    QueueRule,
    Route,
    Routing,
    Stem,
    TaskEnqueueOptions,
    TaskOptions,
)

TOML = """
default_queue = "rest"

[[routes]]
task = "mail.*"
queue = "mail"
priority = 5
priority_range = [2, 7]

[[routes]]
task = "mail.bulk"
queue = "never"

[[routes]]
task = "audit.[ab]"
exchange = "events"
routing_key = "audit.out"
producer = "billing"

[queues.critical]
priority_range = [7, 9]
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "routing.toml"
    path.write_text(TOML)
    return path


#: task, its queue and priority, the publish's queue and priority -> queue and priority
TABLE: list[tuple[str, dict[str, Any], dict[str, Any], tuple[str, int]]] = [
    ("other", {}, {}, ("rest", 0)),
    ("mail.send", {}, {}, ("mail", 5)),
    ("mail.bulk", {}, {}, ("mail", 5)),
    ("mail.send", {"queue": "own"}, {}, ("own", 5)),
    ("mail.send", {"queue": "own"}, {"queue": "this"}, ("this", 5)),
    ("mail.send", {}, {"queue": "default"}, ("default", 5)),
    ("mail.send", {"priority": 6}, {}, ("mail", 6)),
    ("mail.send", {"priority": 9}, {}, ("mail", 7)),
    ("mail.send", {}, {"priority": 0}, ("mail", 2)),
    ("other", {}, {"queue": "critical", "priority": 1}, ("critical", 7)),
    ("other", {}, {"queue": "critical", "priority": 8}, ("critical", 8)),
    ("audit.a", {}, {}, ("rest", 0)),
]


@pytest.mark.parametrize(("task", "options", "publish", "expected"), TABLE)
async def test_where_a_task_goes(
    config: Path, take: Any, task: str, options: Any, publish: Any, expected: tuple[str, int]
) -> None:
    async with Stem("memory://", routing=config) as stem:
        handle = await stem.enqueue(
            task, options=TaskOptions(**options), enqueue_options=TaskEnqueueOptions(**publish)
        )
        ((_, envelope),) = await take(stem, expected[0])
    assert (envelope.queue, envelope.priority) == expected
    asked = publish.get("priority", options.get("priority"))
    moved = [each for each in handle.adjustments if each.option == "priority"]
    assert [(each.requested, each.effective) for each in moved] == (
        [(asked, expected[1])] if asked is not None and asked != expected[1] else []
    )


async def test_a_range_is_no_lack_of_the_adapters(config: Path) -> None:
    async with Stem("memory://", routing=config, strict=True) as stem:
        handle = await stem.enqueue("mail.x", enqueue_options=TaskEnqueueOptions(priority=9))
        assert handle.adjustments[0].effective == 7


async def test_a_route_gives_what_the_broker_routes_by(config: Path, lab: Any) -> None:
    here = await lab({"routing": True}, routing=config)
    await here.stem.enqueue("audit.b")
    await here.stem.enqueue("audit.b", enqueue_options=TaskEnqueueOptions(routing_key="mine", producer=None))
    (first,), (second,) = here.broker.published
    assert first.route == {"exchange": "events", "routing_key": "audit.out", "producer": "billing"}
    assert second.route == {"exchange": "events", "routing_key": "mine"}


async def test_the_environment_names_the_file(
    config: Path, clean_environment: pytest.MonkeyPatch, take: Any
) -> None:
    clean_environment.setenv("STEM_ROUTING_CONFIG", str(config))
    async with Stem("memory://") as stem:
        await stem.enqueue("mail.x")
        assert len(await take(stem, "mail")) == 1
    async with Stem("memory://", routing=Routing()) as stem:
        await stem.enqueue("mail.x")
        assert len(await take(stem)) == 1


async def test_from_code(take: Any) -> None:
    rules = Routing(routes=[Route("a.*", queue="qa", priority=3)], queues={"qa": QueueRule((1, 3))})
    for routing in (rules, {"routes": [{"task": "a.*", "queue": "qa", "priority": 3}]}):
        async with Stem("memory://", routing=routing) as stem:
            await stem.enqueue("a.b")
            ((_, envelope),) = await take(stem, "qa")
            assert envelope.priority == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("default_queue = 3", r"Expected `str`, got `int` - at `\$.default_queue`"),
        ("[[routes]]\nqueue = 'q'", "task"),
        ("[[routes]]\ntask = 'a'\nprioritty = 3", r"routes\[0\].prioritty is not known"),
        ("[queues.q]\nrange = [1, 2]", "queues.q.range is not known"),
        ("colour = 1", "colour is not known; expected default_queue, routes, queues"),
        ("[[routes]]\ntask = 'a'\npriority = 10", "priority=10 is not between"),
        ("[[routes]]\ntask = 'a'\npriority_range = [5, 2]", r"\[5, 2\] is not"),
        ("[queues.q]\npriority_range = [0, 12]", r"\[0, 12\] is not"),
        ("not toml", "not a routing"),
    ],
)
def test_a_wrong_file_says_where(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "routing.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=words) as caught:
        Stem("memory://", routing=str(path))
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.toml"):
        Stem("memory://", routing="nowhere.toml")
