"""What ``on_startup`` functions make and ``on_shutdown`` functions free: once in the worker, once in each child."""

from __future__ import annotations

import logging
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from stem_core.checks import shown

__all__ = ["Name", "Resource", "Resources", "name_of"]

_log = logging.getLogger("stem.worker")

Resource = Callable[[dict[str, Any]], Awaitable[None] | None]
#: Module and qualified name of a function, by which another process imports it.
Name = tuple[str, str]


class Resources:
    """Functions of the state dict, called in order."""

    def __init__(self, on_startup: Sequence[Resource] = (), on_shutdown: Sequence[Resource] = ()) -> None:
        """:raises TypeError: one of them is not several functions."""
        self.on_startup = _functions("on_startup", on_startup)
        self.on_shutdown = _functions("on_shutdown", on_shutdown)

    async def make(self, state: dict[str, Any]) -> None:
        """Fill ``state``; the first error ends it."""
        for function in self.on_startup:
            await _call(function, state)

    async def free(self, state: dict[str, Any]) -> None:
        """Free everything that can be, whatever else cannot."""
        for function in self.on_shutdown:
            try:
                await _call(function, state)
            except Exception:  # noqa: BLE001 - the application's, and the others still have to be freed
                _log.exception("An on_shutdown function failed; the next one is called")

    def names(self) -> tuple[list[Name], list[Name]]:
        """What a child imports of either kind. What none can import is left out, with a warning."""
        return _importable(self.on_startup, "on_startup"), _importable(self.on_shutdown, "on_shutdown")


def _functions(name: str, given: Any) -> tuple[Resource, ...]:
    """What ``given`` holds, as far as it holds functions."""
    found = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str | bytes) else (None,)
    if not all(callable(each) for each in found):
        written = getattr(given, "__name__", None) if callable(given) else None
        raise TypeError(
            f"{name}={shown(given)} must be several functions of the state dict: write "
            f"{name}=[{written or 'connect'}]"
        )
    return found


def name_of(function: Any) -> Name | None:
    """The name of ``function``, None where an import would not find it: a lambda, a bound method, a partial."""
    module, qualname = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(qualname, str):
        return None
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return (module, qualname) if found is function else None


def _importable(functions: Sequence[Resource], kind: str) -> list[Name]:
    names = []
    for function in functions:
        name = name_of(function)
        if name is None:
            _log.warning(
                "%s function %r is not called in child processes, which cannot import it: ctx.state lacks what it "
                "makes there. Define it at the top level of a module.",
                kind,
                function,
            )
        else:
            names.append(name)
    return names


async def _call(function: Resource, state: dict[str, Any]) -> None:
    answer = function(state)
    if answer is not None:
        await answer
