"""Errors as text that travels: what another process can know of an exception."""

from __future__ import annotations

import traceback
from types import TracebackType
from typing import Final

from stem_core.retry import class_names
from stem_core.status import TaskError

__all__ = ["HARD_LIMIT", "error_of"]

#: What a hard limit's end is called, and what a retry policy may name it.
HARD_LIMIT: Final = ("stem_core.TimeLimitExceeded", "builtins.TimeoutError", "builtins.Exception")

_LONGEST_MESSAGE: Final = 4_000
_LONGEST_TRACEBACK: Final = 16_000
_OWN: Final = "stem_core"


def error_of(error: BaseException) -> TaskError:
    """Type, message and traceback, cut where they are very long; frames of the worker itself left out."""
    kind = class_names(error)[0]
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - a broken __str__ is the handler's, and must not lose the failure
        message = "<its __str__ raised>"
    try:
        lines = traceback.format_exception(type(error), error, _from_the_handler(error))
    except Exception:  # noqa: BLE001 - as above
        lines = []
    text = "".join(lines)
    if len(text) > _LONGEST_TRACEBACK:
        half = _LONGEST_TRACEBACK // 2
        text = f"{text[:half]}\n[...]\n{text[-half:]}"
    return TaskError(kind.removeprefix("builtins."), _plain(message[:_LONGEST_MESSAGE]), _plain(text))


def _from_the_handler(error: BaseException) -> TracebackType | None:
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        if not str(frame.tb_frame.f_globals.get("__name__", "")).startswith(_OWN):
            break
        frame = frame.tb_next
    return frame


def _plain(text: str) -> str:
    """Text without lone surrogates, which no store takes."""
    return text.encode("utf-8", "replace").decode("utf-8")
