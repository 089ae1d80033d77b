"""Handlers in processes of their own, their resources and their scopes; for other processes to import."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from stem_core import Stem, TaskContext, hookimpl

#: In it, a file says what happened, or makes it happen; inherited by every child.
FOLDER = "STEM_TEST_RESOURCES"

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")
seen: list[str] = []


class Scopes:
    @hookimpl
    def stem_task_scope(self, context: TaskContext) -> Any:
        return self._scope(context)

    @asynccontextmanager
    async def _scope(self, context: TaskContext) -> AsyncIterator[None]:
        token = tenant.set(context.headers.get("tenant", "none"))
        seen.append(f"entered {context.state['pid']}")
        try:
            yield
        except LookupError as error:
            seen.append(f"left by {error}")
            raise
        else:
            seen.append("left")
        finally:
            tenant.reset(token)


stem = Stem("memory://", plugins=[Scopes()])


def folder() -> Path:
    return Path(os.environ[FOLDER])


async def connect(state: dict[str, Any]) -> None:
    """What only works on the loop that it was made on, and only while that turns."""
    if (folder() / "away").exists():
        (folder() / f"asked-{os.getpid()}").touch()
        raise ConnectionError("the database is away")
    state["pid"] = os.getpid()
    state["loop"] = asyncio.get_running_loop()
    state["turning"] = asyncio.create_task(_turn(state))


async def _turn(state: dict[str, Any]) -> None:
    state["turns"] = 0
    while True:
        await asyncio.sleep(0.001)
        state["turns"] += 1


def count(state: dict[str, Any]) -> None:
    state["made"] = state.get("made", 0) + 1


async def disconnect(state: dict[str, Any]) -> None:
    state["turning"].cancel()
    (folder() / f"freed-{os.getpid()}").touch()


@stem.task(isolation="process")
async def use_async(ctx: TaskContext) -> list[Any]:
    same = ctx.state["loop"] is asyncio.get_running_loop()
    return [os.getpid(), ctx.state["pid"], ctx.state["made"], same]


@stem.task(isolation="process")
def use_sync(ctx: TaskContext) -> list[Any]:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        turns = ctx.state["turns"]
        while ctx.state["turns"] < turns + 3:  # its loop turns while this blocks
            pass
        return [os.getpid(), ctx.state["pid"], ctx.state["made"], True]
    return []


@stem.task(isolation="process")
def what_is_there(ctx: TaskContext) -> list[str]:
    return sorted(ctx.state)


@stem.task(isolation="process")
def scoped_sync(fault: str = "") -> list[str]:
    if fault:
        raise LookupError(fault)
    return [tenant.get(), *seen]


@stem.task(isolation="process")
async def scoped_async() -> list[str]:
    return [tenant.get(), *seen]


@stem.task(isolation="process")
def leave() -> None:
    raise SystemExit(3)


@stem.task(isolation="process")
async def leave_async() -> None:
    raise SystemExit(3)
