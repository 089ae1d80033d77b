"""What a task in a process of its own enqueues through stores that processes share."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

import pytest

from stem_core import Worker
from tests.acceptance.conftest import Pair


@pytest.fixture
def jobs_on(monkeypatch: pytest.MonkeyPatch, pair_of: Callable[[str], Pair]) -> Callable[[str], Any]:
    """The jobs module on a pair of adapters, here and in child processes."""

    def jobs_on(name: str) -> Any:
        pair = pair_of(name)
        monkeypatch.setenv("STEM_TEST_JOBS", pair.broker)
        monkeypatch.setenv("STEM_TEST_NAME", pair.namespace)
        monkeypatch.delitem(sys.modules, "tests.acceptance.process_jobs", raising=False)
        return importlib.import_module("tests.acceptance.process_jobs")

    return jobs_on


async def test_a_publish_rides_on_a_transaction_of_the_child(
    jobs_on: Callable[[str], Any], postgres_url: str
) -> None:
    jobs = jobs_on("postgres")
    async with jobs.stem as stem, Worker(stem, processes=1, wait=0.1):
        for task, word in ((jobs.write, "sync"), (jobs.write_async, "async")):
            writer = await task.enqueue(postgres_url, True)
            committed = stem.handle(await writer.result(timeout=60))
            assert await committed.result(timeout=20) == word
            status = await committed.status()
            assert status.meta["stem.parentTaskId"] == writer.id
            lost = await (await task.enqueue(postgres_url, False)).result(timeout=60)
            assert await stem.handle(lost).status() is None


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_a_child_may_publish_by_itself_where_stores_are_shared(
    jobs_on: Callable[[str], Any], kind: str
) -> None:
    jobs = jobs_on(kind)
    async with jobs.stem as stem, Worker(stem, processes=1, wait=0.1):
        id = await (await jobs.past_the_worker.enqueue()).result(timeout=60)
        assert await stem.handle(id).result(timeout=20) == "by itself"
