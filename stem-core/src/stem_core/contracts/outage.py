"""Law 15: what a lost connection is, and that it ends."""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

import pytest

from stem_core.contracts.driver import Driver
from stem_core.contracts.laws import LawBroken, broken, check
from stem_core.errors import ConfigurationError, StemError

__all__ = ["Outage", "by_commands", "given", "recovers"]

#: Enter it: the store cannot be reached. Leave it: it can.
Outage = Callable[[], AbstractContextManager[object]]
#: Seconds a command may take, and a server that it started to take connections.
_LONGEST_COMMAND: Final = 60.0
Calls = Mapping[str, Callable[[], Coroutine[Any, Any, object]]]


def given(outage: Outage | None) -> Outage:
    """``outage``, or the running test is skipped."""
    if outage is None:
        pytest.skip("not given: an outage (fixture outage, or --stop-command)")
    return outage


def by_commands(stop: str, start: str, reachable: Callable[[], None]) -> Outage:
    """An outage of a server which the shell commands stop and start.

    :param reachable: raises a StemError while the server takes no connections; it is waited for.
    :raises ConfigurationError: (from the outage) a command failed, or the server does not come back.
    """

    @contextmanager
    def outage() -> Iterator[None]:
        _command(stop)
        try:
            yield
        finally:
            _command(start)
            until = time.monotonic() + _LONGEST_COMMAND
            while not _comes(reachable, start, until):
                time.sleep(0.05)

    return outage


def _command(words: str) -> None:
    # Into a file: a server that was left in the background keeps a pipe open, and its end would be waited for.
    with tempfile.TemporaryFile() as said:
        try:
            done = subprocess.run(  # noqa: S602 (whoever gave it runs it)
                words,
                shell=True,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                check=False,
                timeout=_LONGEST_COMMAND,
            )
        except subprocess.TimeoutExpired:
            raise ConfigurationError(
                f"{words!r} has not ended within {_LONGEST_COMMAND:g} s; a command that starts a server must leave it "
                "in the background"
            ) from None
        if done.returncode:
            said.seek(0)
            text = said.read().decode(errors="replace").strip() or "it says nothing"
            raise ConfigurationError(f"{words!r} failed with status {done.returncode}: {text}")


def _comes(reachable: Callable[[], None], start: str, until: float) -> bool:
    try:
        reachable()
    except (StemError, OSError) as error:
        if time.monotonic() > until:
            raise ConfigurationError(
                f"{_LONGEST_COMMAND:g} s after {start!r} the server takes no connections: {error}"
            ) from error
        return False
    return True


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
