"""Graphs are published the way single tasks are: hooks, time limits, retries, lineage."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from stem_core import Canvas, PublishError, Signature, Stem, TaskContext, Worker, hookimpl
from stem_core.errors import AdapterError


class Listener:
    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []

    @hookimpl
    def stem_before_publish(self, envelope: Any) -> None:
        self.heard.append(("before", envelope.name))

    @hookimpl
    def stem_after_publish(self, envelope: Any, accepted: bool) -> None:
        self.heard.append(("after", envelope.name))


def call(name: str = "a") -> Signature[Any]:
    return Signature(name=name)


async def test_hooks_hear_of_the_messages_of_a_graph(store_url: str) -> None:
    listener = Listener()
    async with Stem(store_url, plugins=[listener]) as stem:
        await Canvas(stem).group([call("a"), call("b")])
    names = ["stem.deadline", "a", "b"]
    assert listener.heard == [("before", name) for name in names] + [("after", name) for name in names]


async def test_a_store_that_does_not_answer_fails_the_submission_in_time(lab: Any) -> None:
    here = await lab(publish_timeout=0.05)
    here.broker.gate = asyncio.Event()
    with pytest.raises(PublishError, match="no answer in time") as caught:
        await Canvas(here.stem).group([call()])
    assert caught.value.outcome == "unknown"


async def test_a_backend_that_does_not_answer_fails_the_submission_in_time(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = await lab(publish_timeout=0.05)

    async def group_create(*_: Any) -> bool:
        return await asyncio.Event().wait()

    monkeypatch.setattr(here.backend, "group_create", group_create, raising=False)
    with pytest.raises(PublishError, match=r"Graph g was not submitted: no answer within 0.05 s") as caught:
        await Canvas(here.stem).group([call()], id="g")
    assert caught.value.outcome == "refused"
    assert here.broker.published == []


async def test_a_backend_out_of_reach_refuses_the_submission(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = await lab()

    async def group_create(*_: Any) -> bool:
        raise AdapterError("connection refused")

    monkeypatch.setattr(here.backend, "group_create", group_create, raising=False)
    with pytest.raises(PublishError, match="Graph g was not submitted: connection refused"):
        await Canvas(here.stem).group([call()], id="g")


async def test_an_unknown_fate_is_tried_once_more_since_graphs_are_idempotent(lab: Any) -> None:
    here = await lab()
    here.broker.faults = [AdapterError("connection reset")]
    await Canvas(here.stem).group([call()], id="g")
    assert (await here.stem.broker.stats("default")).ready == 1


@pytest.mark.parametrize("ttl", [0, -5, float("inf")])
async def test_a_graph_is_kept_for_some_time(stem: Stem, ttl: float) -> None:
    with pytest.raises(ValueError, match="ttl="):
        await Canvas(stem).group([call()], ttl=ttl)


async def test_a_graph_submitted_by_a_task_knows_its_parent(stem: Stem) -> None:
    @stem.task
    async def leaf() -> None: ...

    @stem.task
    async def submit(ctx: TaskContext) -> list[str]:
        kept_apart = leaf.s().with_options(add_to_parent=False)
        return list((await Canvas(stem).group([leaf.s(), kept_apart])).members)

    handle = await submit.enqueue()
    await Worker(stem, wait=0.1).run(until_empty=True)
    child, stranger = [await stem.handle(id).status() for id in await handle.result(timeout=5)]
    assert child is not None
    assert stranger is not None
    assert child.meta["stem.parentTaskId"] == child.meta["stem.rootTaskId"] == handle.id
    assert "stem.parentTaskId" not in stranger.meta


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"deadline": float("inf")}, ValueError, "deadline=inf is not a duration"),
        ({"deadline": -1}, ValueError, "deadline=-1 is not a duration"),
        ({"deadline": "5"}, TypeError, "deadline='5' must be seconds"),
        ({"deadline": datetime.max.replace(tzinfo=UTC)}, ValueError, "is not a duration"),
        ({"deadline": datetime(2030, 1, 1)}, ValueError, "has no time zone"),  # noqa: DTZ001
        ({"ttl": 0}, ValueError, "ttl=0 must be longer"),
        ({"ttl": 1e300}, ValueError, "ttl=1e\\+300 is not a duration"),
        ({"id": "two words"}, ValueError, "is not a task id"),
    ],
)
async def test_what_a_graph_cannot_have(
    arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    async with Stem("memory://") as stem:
        with pytest.raises(error, match=words):
            await Canvas(stem).chain([call("a"), call("b")], **arguments)
        assert (await stem.broker.stats("default")).ready == 0


async def test_calls_that_are_in_no_list() -> None:
    canvas = Canvas(Stem("memory://"))
    for submit in (canvas.chain, canvas.group, lambda calls: canvas.chord(calls, call())):
        with pytest.raises(
            TypeError, match=r"takes its calls in a list: write (chain|group)\(\[add.s\(1, 2\), ...\]\)"
        ):
            await submit(call())  # type: ignore[arg-type]
