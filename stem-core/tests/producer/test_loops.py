"""Where a Stem's adapters live, and how calls get there: other loops, threads, forks, closed and stopped loops."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from stem_core import (
    AdapterError,
    PublishError,
    Stem,
    StemError,
    TaskEnqueueOptions,
    TaskOptions,
    TaskRetryPolicy,
)


@pytest.fixture
def closing() -> Iterator[list[Stem]]:
    """Stems put here are closed at the end."""
    made: list[Stem] = []
    yield made
    for stem in made:
        stem.close_sync()


def ready(stem: Stem) -> int:
    return stem.run_sync(lambda wiring: wiring.broker.stats("default")).ready


def test_sync_without_any_loop_starts_one_in_the_background(store_url: str, closing: list[Stem]) -> None:
    stem = Stem(store_url)
    closing.append(stem)
    handle = stem.enqueue_sync("a", args=[1])
    assert handle.status_sync().name == "a"
    assert [
        each.id for each in stem.enqueue_many_sync([stem._named("b", None, None, None, None, None, None)])
    ]
    assert ready(stem) == 2


def test_async_without_open_works_from_one_loop_after_another(store_url: str, closing: list[Stem]) -> None:
    stem = Stem(store_url)
    closing.append(stem)

    async def once() -> str:
        return (await stem.enqueue("a")).id

    ids = {asyncio.run(once()) for _ in range(3)}
    assert len(ids) == 3
    assert ready(stem) == 3


def test_a_sync_view_that_runs_a_loop_for_each_call(store_url: str, closing: list[Stem]) -> None:
    """As async_to_sync does: a new loop in whatever thread, gone after the call."""
    stem = Stem(store_url)
    closing.append(stem)

    async def enqueue() -> None:
        await stem.enqueue("a")

    threads = [threading.Thread(target=lambda: asyncio.run(enqueue())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ready(stem) == 8


async def test_another_loop_hops_to_the_home_loop(store_url: str) -> None:
    async with Stem(store_url) as stem:

        async def elsewhere() -> str:
            handle = await stem.enqueue("a")
            assert await handle.status() is not None
            return handle.id

        await asyncio.to_thread(lambda: asyncio.run(elsewhere()))
        assert (await stem.broker.stats("default")).ready == 1


async def test_sync_on_the_home_loops_thread_is_refused(stem: Stem) -> None:
    with pytest.raises(StemError, match="would block the loop"):
        stem.enqueue_sync("a")
    with pytest.raises(StemError, match="would block"):
        stem.handle("x").result_sync(timeout=0)
    with pytest.raises(StemError, match="would block"):
        stem.close_sync()


async def test_sync_inside_another_loop_blocks_that_one_only(store_url: str) -> None:
    stem = Stem(store_url)
    handle = stem.enqueue_sync("a")  # home is in the background, so this is allowed
    assert await handle.status() is not None
    await stem.close()


def test_a_hop_to_a_loop_that_does_not_run_says_so(store_url: str) -> None:
    loop = asyncio.new_event_loop()
    stem = Stem(store_url)
    loop.run_until_complete(stem.open())
    with pytest.raises(StemError, match="is not running"):
        stem.enqueue_sync("a")

    async def elsewhere() -> None:
        await stem.enqueue("a")

    with pytest.raises(StemError, match="is not running"):
        asyncio.run(elsewhere())
    loop.run_until_complete(stem.close())
    loop.close()


def test_a_loop_that_stops_under_a_hop_is_noticed(
    monkeypatch: pytest.MonkeyPatch, closing: list[Stem]
) -> None:
    monkeypatch.setattr("stem_core.loops._LOOK", 0.01)
    loop = asyncio.new_event_loop()
    stem = Stem("memory://")
    loop.run_until_complete(stem.open())
    started = threading.Event()

    async def never(_: Any) -> None:
        started.set()
        await asyncio.Event().wait()

    running = threading.Thread(target=loop.run_forever)
    running.start()
    failed: list[BaseException] = []

    def call() -> None:
        try:
            stem.run_sync(never)
        except StemError as error:
            failed.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    started.wait()
    loop.call_soon_threadsafe(loop.stop)
    running.join()
    caller.join()
    assert "is not running" in str(failed[0])
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(stem.close())
    loop.close()


def test_after_the_home_loop_was_closed_it_opens_again(store_url: str, closing: list[Stem]) -> None:
    stem = Stem(store_url)
    closing.append(stem)

    async def first() -> None:
        await stem.open()
        await stem.enqueue("a")

    asyncio.run(first())  # ends without close, as scripts do
    stem.enqueue_sync("b")
    asyncio.run(stem.open())
    assert ready(stem) == 2


def test_closed_is_closed_until_opened_again(store_url: str) -> None:
    stem = Stem(store_url)

    async def use() -> None:
        async with stem:
            await stem.enqueue("a")

    asyncio.run(use())
    with pytest.raises(StemError, match="This Stem is closed"):
        stem.enqueue_sync("a")
    asyncio.run(use())

    async def look() -> int:
        async with stem:
            await stem.close()
            await stem.close()
            await stem.open()
            return (await stem.broker.stats("default")).ready

    assert asyncio.run(look()) == 2


async def test_entering_twice_closes_once(store_url: str) -> None:
    async with Stem(store_url) as stem:
        async with stem:
            await stem.enqueue("a")
        await stem.enqueue("b")
    with pytest.raises(StemError, match="closed"):
        await stem.enqueue("c")


def test_opening_moves_the_home_from_the_background(store_url: str) -> None:
    stem = Stem(store_url)
    stem.enqueue_sync("a")
    background = stem._home._residence

    async def use() -> None:
        async with stem:
            assert stem._home.here() is not None
            assert not background.thread.is_alive()  # type: ignore[union-attr]
            await stem.enqueue("b")
            assert (await stem.broker.stats("default")).ready == 2

    asyncio.run(use())


async def test_a_store_out_of_reach_is_said_and_can_be_tried_again(lab: Any) -> None:
    here = await lab()
    await here.stem.close()
    real = here.broker.inner.open
    failing = True

    async def open() -> None:
        if failing:
            raise AdapterError("no route to host")
        await real()

    here.broker.open = open
    stem = Stem(here.broker, backend=here.backend)
    with pytest.raises(AdapterError, match="no route"):
        await stem.open()
    with pytest.raises(PublishError, match=r"was not published.*no route") as caught:
        await stem.enqueue("a")
    assert caught.value.outcome == "refused"
    with pytest.raises(PublishError, match="no route"):
        await stem.enqueue("a", options=TaskOptions(unique=True))
    with pytest.raises(AdapterError, match="no route"):
        await stem.handle("x").status()
    failing = False
    await stem.enqueue("a")
    assert len(here.broker.published) == 1
    await stem.close()


async def test_retry_outlives_a_store_that_is_not_up_yet(lab: Any) -> None:
    here = await lab()
    await here.stem.close()
    real, left = here.broker.inner.open, [AdapterError("starting"), AdapterError("starting")]

    async def open() -> None:
        if left:
            raise left.pop()
        await real()

    here.broker.open = open
    stem = Stem(here.broker, backend=here.backend)
    retry = TaskEnqueueOptions(
        retry=True, publish_retry_policy=TaskRetryPolicy(default_delay=0, max_retries=2)
    )
    await stem.enqueue("a", enqueue_options=retry)
    left += [AdapterError("gone")]
    await stem.enqueue_many([stem._named("a", None, None, None, None, None, retry)])
    assert len(here.broker.published) == 2
    await stem.close()


async def test_an_opening_that_hangs_fails_in_time(lab: Any) -> None:
    here = await lab()
    await here.stem.close()

    async def open() -> None:
        await asyncio.Event().wait()

    here.broker.open = open
    stem = Stem(here.broker, backend=here.backend, publish_timeout=0.05)
    with pytest.raises(PublishError, match="out of reach: no answer in time") as caught:
        await stem.enqueue("a")
    assert caught.value.outcome == "refused"
    await stem.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("opened_by", ["background", "loop"])
def test_a_forked_child_starts_anew(tmp_path: Any, opened_by: str) -> None:
    stem = Stem(f"sqlite:///{tmp_path / 'stem.db'}")
    loop = asyncio.new_event_loop()
    if opened_by == "loop":
        loop.run_until_complete(stem.open())
        loop.run_until_complete(stem.enqueue("parent"))
    else:
        stem.enqueue_sync("parent")
    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(BaseException):
            stem.enqueue_sync("child")

            async def use() -> None:
                await stem.enqueue("child")

            asyncio.run(use())
            code = 0 if ready(stem) == 3 else 2
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    if opened_by == "loop":
        loop.run_until_complete(stem.enqueue("parent"))
        assert loop.run_until_complete(stem.broker.stats("default")).ready == 4
        loop.run_until_complete(stem.close())
    else:
        stem.enqueue_sync("parent")
        assert ready(stem) == 4
        stem.close_sync()
    loop.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_while_a_lock_is_held(tmp_path: Any) -> None:
    stem = Stem(f"sqlite:///{tmp_path / 'stem.db'}")
    stem.enqueue_sync("parent")
    with stem._home._lock():
        child = os.fork()
        if child == 0:
            code = 1
            with contextlib.suppress(BaseException):
                stem.enqueue_sync("child")
                code = 0
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    stem.close_sync()


def test_a_forgotten_stem_ends_its_thread() -> None:
    stem = Stem("memory://")
    stem.enqueue_sync("a")
    thread = stem._home._residence.thread  # type: ignore[union-attr]
    assert thread is not None
    del stem
    gc.collect()
    thread.join(60)
    assert not thread.is_alive()


def test_a_script_that_never_closes_ends(tmp_path: Any) -> None:
    import subprocess
    import sys

    script = (
        "from stem_core import Stem\n"
        f"stem = Stem('sqlite:///{tmp_path / 'stem.db'}')\n"
        "print(stem.enqueue_sync('a').status_sync().state)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], check=False, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "queued\n", "")


async def test_pointed_at_swaps_and_nests(stem: Stem) -> None:
    other, third = Stem("memory://"), Stem("memory://")

    @stem.task
    async def work() -> None: ...

    with stem.pointed_at(other.wiring):
        async with stem:
            assert stem.broker is other.broker
            await work.enqueue()
            with stem.pointed_at(third.wiring):
                async with stem:
                    await work.enqueue()
                    await asyncio.to_thread(work.enqueue_sync)
                    assert (await stem.broker.stats("default")).ready == 2
            assert (await stem.broker.stats("default")).ready == 1
    assert (await stem.broker.stats("default")).ready == 0


async def test_wiring_here_is_the_stems_own_at_home_and_a_copy_elsewhere(tmp_path: Any) -> None:
    async with Stem(f"sqlite:///{tmp_path / 'stem.db'}") as stem:
        assert await stem.wiring_here() is stem.wiring

        async def elsewhere() -> None:
            wiring = await stem.wiring_here()
            assert wiring is not stem.wiring
            assert wiring.committer is not None
            await wiring.close()

        await asyncio.to_thread(lambda: asyncio.run(elsewhere()))
