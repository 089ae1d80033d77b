"""Law 15: what a lost connection is, and that it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractContextManager
from typing import Any

import pytest

from stem_core.contracts.driver import Driver
from stem_core.contracts.laws import LawBroken, broken, check
from stem_core.errors import StemError

__all__ = ["Outage", "given", "recovers"]

#: Enter it: the store cannot be reached. Leave it: it can.
Outage = Callable[[], AbstractContextManager[object]]
Calls = Mapping[str, Callable[[], Coroutine[Any, Any, object]]]


def given(outage: Outage | None) -> Outage:
    """``outage``, or the running test is skipped."""
    if outage is None:
        pytest.skip("not given: outage")
    return outage


def recovers(driver: Driver, outage: Outage, calls: Calls, patience: float) -> None:
    """Each call is a ``StemError`` during the outage, within ``patience`` seconds, and works again after it."""
    for name, call in calls.items():
        driver.run(_within(call(), patience, f"{name}, before the outage,"))
    with outage():
        for name, error in driver.run(_all_at_once(calls, patience)).items():
            if error is None:
                broken(15, f"{name} answered without a connection")
            if isinstance(error, LawBroken):
                raise error
            if not isinstance(error, StemError):
                raise LawBroken(
                    15, f"{name} without a connection raised {error!r}; it must be a StemError"
                ) from error
    for name, call in calls.items():
        driver.run(_again(name, call, patience))


async def _all_at_once(calls: Calls, patience: float) -> dict[str, BaseException | None]:
    """What each call raised; side by side, for each may look for its store until it gives up."""
    answers = await asyncio.gather(
        *(_within(call(), patience, name) for name, call in calls.items()), return_exceptions=True
    )
    return {
        name: answer if isinstance(answer, BaseException) else None
        for name, answer in zip(calls, answers, strict=True)
    }


async def _within(work: Coroutine[Any, Any, object], patience: float, name: str) -> None:
    try:
        await asyncio.wait_for(work, patience)
    except TimeoutError:
        broken(15, f"{name} hung for {patience} s")


async def _again(name: str, call: Callable[[], Coroutine[Any, Any, object]], patience: float) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + patience
    while True:
        try:
            await _within(call(), patience, name)
        except StemError as error:
            check(loop.time() < until, 15, f"{name} fails {patience} s after the connection is back: {error}")
            await asyncio.sleep(0.02)
        else:
            return
