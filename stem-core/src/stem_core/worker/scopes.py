"""``stem_task_scope``: what plugins enter around a handler."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

__all__ = ["entered"]

_log = logging.getLogger("stem.worker")


@contextlib.asynccontextmanager
async def entered(scopes: Sequence[Callable[..., Any]], context: Any) -> AsyncIterator[None]:
    """Every scope, around what is done inside. One that fails is logged and changes nothing."""
    async with contextlib.AsyncExitStack() as stack:
        for scope in scopes:
            try:
                await stack.enter_async_context(_Guarded(scope(context=context)))
            except Exception:  # noqa: BLE001 - a plugin's fault changes nothing
                _log.exception("A stem_task_scope hook failed; the task runs without it")
        yield


class _Guarded:
    """A plugin's context manager: what it raises is logged, and hides nothing of the handler's."""

    def __init__(self, scope: contextlib.AbstractAsyncContextManager[Any]) -> None:
        self._scope = scope

    async def __aenter__(self) -> Any:
        return await self._scope.__aenter__()

    async def __aexit__(self, *details: Any) -> None:  # noqa: PYI036 - handed on as they are
        try:
            await self._scope.__aexit__(*details)
        except Exception as error:  # noqa: BLE001 - a plugin's fault changes nothing
            if error is not details[1]:
                _log.exception("A stem_task_scope hook failed at its exit")
