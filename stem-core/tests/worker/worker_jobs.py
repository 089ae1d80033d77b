"""Handlers that other processes can import."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time

from stem_core import Stem, StemError, TaskContext, current_task

stem = Stem("memory://")


@stem.task(isolation="process")
def add(x: int, y: int) -> list[int]:
    return [x + y, os.getpid()]


@stem.task(isolation="process")
async def add_async(x: int, y: int) -> list[int]:
    await asyncio.sleep(0)
    return [x + y, os.getpid()]


@stem.task(isolation="process")
def fail(word: str) -> None:
    raise LookupError(word)


@stem.task(isolation="process", max_retries=1)
def ask_again(ctx: TaskContext) -> int:
    if ctx.attempt == 0:
        raise ctx.retry(countdown=0)
    return ctx.attempt


@stem.task(isolation="process")
def unencodable() -> object:
    return object()


@stem.task(isolation="process")
def die(signal_number: int) -> None:
    os.kill(os.getpid(), signal_number)
    time.sleep(60)


@stem.task(isolation="process")
def leave() -> None:
    os._exit(3)


@stem.task(isolation="process")
def eat_memory() -> int:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (600 << 20, 600 << 20))
    return len(bytearray(2 << 30))


@stem.task(isolation="process")
def talk(ctx: TaskContext) -> list[object]:
    ctx.progress_sync(30, {"at": "a third"})
    ctx.heartbeat_sync()
    ctx.extend_lease_sync(90)
    current = current_task()
    assert current is not None
    return [ctx.enqueue_sync(note.call("from the child")).id, current.id, ctx.headers["tenant"]]


@stem.task
async def note(word: str) -> str:
    return word


@stem.task(unique=True)
async def once(word: str) -> str:
    return word


@stem.task(isolation="process")
def enqueue_as_elsewhere(ctx: TaskContext) -> list[object]:
    first = ctx.enqueue_sync(once.call("a"), queue="later", exchange="mail")
    second = ctx.enqueue_sync(once.call("a"), queue="later")
    orphan = ctx.enqueue_sync("worker_jobs.note", ["b"], queue="later", add_to_parent=False, task_id="orphan")
    try:
        ctx.enqueue_sync(note.call("c"), publish_connection=object())
        told = ""
    except StemError as error:
        told = str(error)
    adjusted = [each.option for each in first.adjustments]
    return [first.id, second.id, first.deduplicated, second.deduplicated, adjusted, orphan.id, told]


@stem.task(isolation="process")
async def enqueue_past_the_worker(word: str) -> list[str]:
    told = []
    for enqueue in (note.enqueue, stem.task(name="again")(note.function).enqueue, once.enqueue):
        try:
            await enqueue(word)
        except StemError as error:
            told.append(str(error))
    return told


@stem.task
async def sleep_async(seconds: float) -> str:
    try:
        await asyncio.sleep(seconds)
    except Exception as error:  # noqa: BLE001 - whatever it is thrown
        return type(error).__name__
    return "slept"


@stem.task
async def block_async(seconds: float) -> str:
    time.sleep(seconds)  # noqa: ASYNC251 - what must not be done
    return "blocked"


@stem.task
async def swallow_async() -> str:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        return "swallowed"
    return "slept"


def spin(end: float) -> None:
    """A frame of its own: from 3.12 on what arrives at a loop's jump back is outside a ``try`` around that loop."""
    while time.monotonic() < end:
        pass


@stem.task
def loop_in_thread() -> str:
    end = time.monotonic() + 30
    try:
        spin(end)
    except Exception as error:  # noqa: BLE001 - whatever it is thrown
        return type(error).__name__
    return "looped"


@stem.task
def sleep_in_thread(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


@stem.task
def swallow_in_thread() -> str:
    end = time.monotonic() + 0.3
    try:
        spin(end)
    except BaseException:  # noqa: BLE001 - what no limit gets past
        while time.monotonic() < end:
            pass
        return "swallowed"
    return "looped"


@stem.task(isolation="process")
def sleep_in_process(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


@stem.task(isolation="process")
def loop_in_process() -> str:
    while True:
        pass


@stem.task(isolation="process")
def regex_in_process() -> str:
    re.fullmatch(r"(a+)+b", "a" * 40)
    return "matched"


@stem.task(isolation="process")
def deaf_in_process() -> str:
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM, signal.SIGTERM])
    while True:
        try:
            time.sleep(60)
        except BaseException:  # noqa: BLE001 - as deaf as it can be
            continue


@stem.task(isolation="process")
async def sleep_async_in_process(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "slept"
