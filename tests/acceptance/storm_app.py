"""What the worker processes of the storm run; where its stores are comes from the environment."""

from __future__ import annotations

import asyncio
import os

from stem_core import Stem

stem = Stem(
    os.environ["STORM_BROKER"], backend=os.environ["STORM_BACKEND"], namespace=os.environ["STORM_NAMESPACE"]
)


@stem.task(name="member")
async def member(n: int) -> int:
    await asyncio.sleep(float(os.environ["STORM_PAUSE"]))
    return n


@stem.task(name="gather")
async def gather(values: list[int]) -> list[int]:
    await asyncio.sleep(0.01)
    return values
