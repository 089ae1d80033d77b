"""Several clients at once: in threads with loops of their own, or as tasks of one loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

__all__ = ["together"]

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
            return [each.result() for each in [pool.submit(one, work) for work in works]]

    async def all_of_them() -> list[T]:
        adapters = [await opened() for _ in works]
        try:
            return list(await asyncio.gather(*(work(a) for work, a in zip(works, adapters, strict=True))))
        finally:
            for adapter in adapters:
                await adapter.close()

    return run(all_of_them())
