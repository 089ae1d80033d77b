"""Tasks in processes of their own: results, errors, crashes charged to their own message alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import worker_jobs as jobs

from stem_core import Stem, TaskFailed, TaskOptions
from stem_core.app import StemApp
from stem_core.errors import ConfigurationError
from stem_core.status import TaskState

TASKS = (jobs.add, jobs.add_async, jobs.fail, jobs.ask_again, jobs.unencodable, jobs.talk, jobs.note)


async def test_results_errors_and_retries_come_back_from_a_child() -> None:
    async with StemApp.in_memory(tasks=TASKS, worker={"processes": 1}) as app:
        value, child = await (await jobs.add.enqueue(1, y=2)).result(timeout=30)
        assert value == 3
        assert child != os.getpid()
        assert await (await jobs.add_async.enqueue(3, 4)).result(timeout=30) == [7, child]
        with pytest.raises(TaskFailed, match="LookupError: word") as caught:
            await (await jobs.fail.enqueue("word")).result(timeout=30)
        assert "in fail" in caught.value.traceback
        assert await (await jobs.ask_again.enqueue()).result(timeout=30) == 1
        handle = await jobs.unencodable.enqueue()
        with pytest.raises(TaskFailed, match="EncodeError"):
            await handle.result(timeout=30)
        status = await handle.status()
        assert status is not None
        assert status.reason == "rejected"
        assert app.worker.stats.crashed_children == 0


async def test_a_child_talks_to_its_worker() -> None:
    async with StemApp.in_memory(tasks=TASKS, worker={"processes": 1}) as app:
        call = jobs.talk.call().with_headers({"tenant": "acme"})
        handle = await app.enqueue_call(call)
        enqueued, current, tenant = await handle.result(timeout=30)
        assert (current, tenant) == (handle.id, "acme")
        assert await app.handle(str(enqueued)).result(timeout=5) == "from the child"
        child = await app.handle(str(enqueued)).status()
        assert child is not None
        assert child.meta["stem.parentTaskId"] == handle.id
        status = await handle.status()
        assert status is not None
        assert status.progress is not None
        assert (status.progress.percent, status.progress.data) == (30, {"at": "a third"})


async def test_a_child_enqueues_as_a_task_on_the_loop_does() -> None:
    tasks = (jobs.enqueue_as_elsewhere, jobs.once, jobs.note)
    async with StemApp.in_memory(tasks=tasks, worker={"processes": 1, "queues": ["default"]}) as app:
        handle = await jobs.enqueue_as_elsewhere.enqueue()
        first, second, new, known, adjusted, orphan, told = await handle.result(timeout=30)
        assert (second, new, known, adjusted, orphan) == (first, False, True, ["exchange"], "orphan")
        assert "in one process alone" in told
        assert (await app.broker.stats("later")).ready == 2
        first_status, orphan_status = await app.backend.fetch([first, orphan])
        assert first_status.meta["stem.parentTaskId"] == handle.id
        assert first_status.meta["stem.duplicates"] == 1
        assert "stem.parentTaskId" not in orphan_status.meta


async def test_what_a_child_would_publish_into_a_store_of_its_own_is_refused() -> None:
    tasks = (jobs.enqueue_past_the_worker, jobs.note, jobs.once)
    async with StemApp.in_memory(tasks=tasks, worker={"processes": 1}):
        told = await (await jobs.enqueue_past_the_worker.enqueue("lost")).result(timeout=30)
        assert len(told) == 3
        assert all("MemoryBroker is in one process alone" in each for each in told)
        assert all("ctx.enqueue_sync" in each for each in told)


SCRIPT = """
import asyncio
from stem_core import Stem, TaskFailed, TaskOptions, TaskRetryPolicy, Worker, current_task
stem = Stem("memory://")

class Busy(Exception): ...

class Answer:
    word: "Word"

class Word: ...

policy = TaskRetryPolicy(auto_retry_for=(Busy,))

@stem.task(isolation="process", max_retries=2, retry_policy=policy)
def busy():
    import typing
    assert typing.get_type_hints(Answer) == {"word": Word}
    raise Busy(current_task().attempt)

@stem.task(isolation="process")
def names():
    return [busy.name, __name__, __package__]

async def main():
    async with stem, Worker(stem, processes=1, wait=0.1):
        try:
            await (await busy.enqueue()).result(timeout=60)
        except TaskFailed as error:
            print(error.type, error.message)
        print(await (await names.enqueue()).result(timeout=60))

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("words", "module", "package"),
    [(["pkg/shop.py"], "shop", None), (["-m", "pkg.shop"], "pkg.shop", "pkg")],
)
def test_what_a_script_defines_has_one_name_everywhere(
    tmp_path: Path, words: list[str], module: str, package: str | None
) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").touch()
    (tmp_path / "pkg" / "shop.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True
    )
    failed, found = done.stdout.splitlines()
    assert failed == f"{module}.Busy 2", done.stderr
    assert found == str([f"{module}.busy", "__mp_main__", package])


@pytest.mark.parametrize("end", ["killed", "left"])
async def test_a_crash_is_charged_to_the_child_s_own_message(end: str) -> None:
    tasks = (jobs.die, jobs.leave, jobs.add)
    async with StemApp.in_memory(tasks=tasks, worker={"processes": 2, "max_deliveries": 3}) as app:
        crash = jobs.die.call(signal.SIGKILL) if end == "killed" else jobs.leave.call()
        poison = await app.enqueue_call(crash)
        innocents = [await jobs.add.enqueue(n, n) for n in range(10)]
        for n, handle in enumerate(innocents):
            assert (await handle.result(timeout=30))[0] == 2 * n
        with pytest.raises(TaskFailed, match="CrashLoop"):
            await poison.result(timeout=30)
        status = await poison.status()
        assert status is not None
        assert (status.state, status.reason) == (TaskState.FAILED, "crash-loop")
        stats = app.worker.stats
        assert (stats.crashed_children, stats.dead_lettered) == (3, 1)
        assert (await app.broker.dead_list("default")).items[0].reason == "crash-loop"


async def test_a_child_out_of_memory_fails_its_task_alone() -> None:
    async with StemApp.in_memory(tasks=(jobs.eat_memory, jobs.add), worker={"processes": 1}):
        handle = await jobs.eat_memory.enqueue()
        with pytest.raises(TaskFailed, match="MemoryError"):
            await handle.result(timeout=30)
        # The same child goes on, with what memory it is allowed.
        assert (await (await jobs.add.enqueue(1, 1)).result(timeout=30))[0] == 2


async def test_children_are_recycled() -> None:
    worker = {"processes": 1, "max_tasks_per_child": 2}
    async with StemApp.in_memory(tasks=TASKS, worker=worker):
        pids = [(await (await jobs.add.enqueue(1, 1)).result(timeout=30))[1] for _ in range(4)]
    assert pids[0] == pids[1] != pids[2] == pids[3]


def test_what_no_child_could_import_is_refused_when_it_is_declared() -> None:
    stem = Stem("memory://")

    def local() -> None: ...

    with pytest.raises(ConfigurationError, match="top level of a module"):
        stem.task(isolation="process")(local)
    with pytest.raises(ConfigurationError, match="top level of a module"):
        stem.task(options=TaskOptions(isolation="process"), name="anonymous")(lambda: None)
