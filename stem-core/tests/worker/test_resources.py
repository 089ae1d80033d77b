"""What ``on_startup`` makes in the worker's child processes, and the scopes entered there."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
from pathlib import Path
from typing import Any

import pytest
import resource_jobs as jobs

from stem_core import TaskFailed, hookimpl
from stem_core.app import StemApp
from stem_core.worker import story
from stem_core.worker.resources import Resources, name_of

WORKER = {
    "processes": 1,
    "on_startup": [jobs.connect, jobs.count],
    "on_shutdown": [jobs.disconnect],
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(jobs.FOLDER, str(tmp_path))
    return tmp_path


def files(folder: Path, pattern: str = "*") -> set[str]:
    return {each.name for each in folder.glob(pattern)}


def app_of(**worker: Any) -> StemApp:
    return StemApp.in_memory(tasks=jobs.stem.tasks.values(), worker={**WORKER, **worker})


async def test_a_child_has_resources_of_its_own_made_once_and_freed_at_its_end(folder: Path) -> None:
    async with app_of() as app:
        uses = [await task.enqueue() for task in (jobs.use_async, jobs.use_sync, jobs.use_async)]
        answers = [await each.result(timeout=30) for each in uses]
        child = answers[0][0]
        assert answers == [[child, child, 1, True]] * 3
        assert app.worker.state["pid"] == os.getpid() != child
        assert not files(folder, "freed-*")
    assert files(folder) == {f"freed-{child}", f"freed-{os.getpid()}"}


async def test_a_child_that_is_replaced_frees_its_own(folder: Path) -> None:
    async with app_of(max_tasks_per_child=1):
        pids = [(await (await jobs.use_async.enqueue()).result(timeout=30))[0] for _ in range(2)]
    assert files(folder) == {f"freed-{pid}" for pid in (*pids, os.getpid())}


async def test_a_child_whose_resources_cannot_be_made_charges_no_task(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(story, "_NOT_READY_DELAY", 0.05)
    async with app_of() as app:
        (folder / "away").touch()
        handle = await jobs.use_async.enqueue()
        while app.worker.stats.given_back < 2:
            await asyncio.sleep(0.01)
        assert len(files(folder, "asked-*")) >= 2  # a new child each time
        (folder / "away").unlink()
        assert (await handle.result(timeout=30))[2:] == [1, True]
        status = await handle.status()
        assert status is not None
        assert status.attempt == 0
        assert app.worker.stats.crashed_children == app.worker.stats.failed == 0
    assert "ConnectionError: the database is away" in caplog.text


async def test_what_a_child_cannot_import_is_named_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    def local(state: dict[str, Any]) -> None:
        state["local"] = True

    with caplog.at_level(logging.WARNING, "stem.worker"):
        async with app_of(on_startup=[*WORKER["on_startup"], local]) as app:
            names = await (await jobs.what_is_there.enqueue()).result(timeout=30)
            assert "made" in names
            assert "local" not in names
            assert app.worker.state["local"]
    (said,) = [each.getMessage() for each in caplog.records if "cannot import" in each.getMessage()]
    assert "test_what_a_child" in said
    assert "top level" in said


def test_names_are_of_what_an_import_finds() -> None:
    assert name_of(jobs.connect) == ("resource_jobs", "connect")
    assert name_of(jobs.Scopes.stem_task_scope) == ("resource_jobs", "Scopes.stem_task_scope")
    for nameless in (lambda _: None, functools.partial(jobs.count), jobs.Scopes().stem_task_scope, 7):
        assert name_of(nameless) is None
    assert Resources([jobs.count], [jobs.disconnect]).names() == (
        [("resource_jobs", "count")],
        [("resource_jobs", "disconnect")],
    )


async def test_scopes_surround_handlers_in_children(caplog: pytest.LogCaptureFixture) -> None:
    async with app_of() as app:
        (pid, *_) = await (await jobs.use_async.enqueue()).result(timeout=30)
        before = [f"entered {pid}", "left"]
        for task in (jobs.scoped_sync, jobs.scoped_async):
            handle = await app.enqueue(task.name, headers={"tenant": "acme"})
            assert await handle.result(timeout=30) == ["acme", *before, f"entered {pid}"]
            before += [f"entered {pid}", "left"]
        with pytest.raises(TaskFailed, match="LookupError: key"):
            await (await jobs.scoped_sync.enqueue("key")).result(timeout=30)
        told = await (await jobs.scoped_async.enqueue()).result(timeout=30)
        assert told[-2:] == ["left by key", f"entered {pid}"]
    assert jobs.seen == []  # nothing of it in the worker


@pytest.mark.parametrize("task", [jobs.leave, jobs.leave_async])
async def test_a_handler_that_wants_to_leave_fails_and_its_child_goes_on(task: Any) -> None:
    async with app_of() as app:
        (pid, *_) = await (await jobs.use_async.enqueue()).result(timeout=30)
        with pytest.raises(TaskFailed, match="SystemExit: 3"):
            await (await task.enqueue()).result(timeout=30)
        assert (await (await jobs.use_async.enqueue()).result(timeout=30))[0] == pid
        assert app.worker.stats.crashed_children == 0


async def test_a_plugin_hears_when_a_handler_starts_in_a_child() -> None:
    class Watcher:
        started: list[tuple[str, int]] = []  # noqa: RUF012 - of this test alone

        @hookimpl
        def stem_task_started(self, envelope: Any, attempt: int) -> None:
            self.started.append((envelope.id, attempt))

    app = StemApp.in_memory(tasks=jobs.stem.tasks.values(), worker=WORKER, plugins=[Watcher()])
    async with app:
        handle = await jobs.use_async.enqueue()
        await handle.result(timeout=30)
        assert Watcher.started == [(handle.id, 0)]
