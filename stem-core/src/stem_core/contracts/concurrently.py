"""Several clients at once: in threads with loops of their own, or as tasks of one loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

__all__ = ["in_rounds", "together"]

T = TypeVar("T")


def together(
    opened: Callable[[], Coroutine[Any, Any, Any]],
    works: Sequence[Callable[[Any], Coroutine[Any, Any, T]]],
    *,
    threads: bool,
    run: Callable[[Coroutine[Any, Any, list[T]]], list[T]],
) -> list[T]:
    """Do all ``works`` at once, each with an adapter of its own from ``opened``, all open before any starts.

    In threads with a loop each, or, for adapters of one process, as tasks of the loop behind ``run``.
    """
    if threads:
        barrier = threading.Barrier(len(works))

        def one(work: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
            async def alone() -> T:
                adapter = await opened()
                try:
                    await asyncio.get_running_loop().run_in_executor(None, barrier.wait)
                    return await work(adapter)
                finally:
                    await adapter.close()

            try:
                return asyncio.run(alone())
            except BaseException:
                barrier.abort()
                raise

        with ThreadPoolExecutor(len(works)) as pool:
            doing = [pool.submit(one, work) for work in works]
            errors = [error for each in doing if (error := each.exception()) is not None]
            for error in errors:
                if not isinstance(error, threading.BrokenBarrierError) or error is errors[-1]:
                    raise error
            return [each.result() for each in doing]

    async def all_of_them() -> list[T]:
        adapters = [await opened() for _ in works]
        try:
            return list(await asyncio.gather(*(work(a) for work, a in zip(works, adapters, strict=True))))
        finally:
            for adapter in adapters:
                await adapter.close()

    return run(all_of_them())


def in_rounds(
    opened: Callable[[], Coroutine[Any, Any, Any]],
    works: Sequence[Callable[[Any, int], Coroutine[Any, Any, T]]],
    count: int,
    *,
    threads: bool,
    run: Callable[[Coroutine[Any, Any, Any]], Any],
) -> list[list[T]]:
    """Do all ``works`` at once, ``count`` times over with the same adapters; the answers of each round.

    A work is given its adapter and the number of the round. Nobody begins a round before everybody is there.
    """
    meeting = threading.Barrier(len(works)) if threads else asyncio.Barrier(len(works))

    async def meet() -> None:
        if isinstance(meeting, asyncio.Barrier):
            await meeting.wait()
        else:
            await asyncio.get_running_loop().run_in_executor(None, meeting.wait)

    async def repeated(work: Callable[[Any, int], Coroutine[Any, Any, T]], adapter: Any) -> list[T]:
        answers = []
        try:
            for number in range(count):
                await meet()
                answers.append(await work(adapter, number))
        except BaseException:
            if isinstance(meeting, asyncio.Barrier):
                await meeting.abort()
            else:
                meeting.abort()
            raise
        return answers

    rows = together(opened, [partial(repeated, work) for work in works], threads=threads, run=run)
    return [list(answers) for answers in zip(*rows, strict=True)]
