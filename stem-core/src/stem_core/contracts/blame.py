"""What a failed test says: which law, in which words.

A model's test has no law in its name. A :class:`LawBroken` has its own; whatever else an adapter raises counts
against the law of the port's method that it came from.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from stem_core.contracts.laws import LawBroken

__all__ = ["law_of", "leaves", "told"]

#: The first law that a method's answer is held to.
_LAWS: Final[Mapping[str, int]] = {
    "open": 16,
    "close": 16,
    "publish": 1,
    "receive": 1,
    "receive_cancelled": 14,
    "settle": 5,
    "extend": 6,
    "stats": 11,
    "purge": 11,
    "withdraw": 17,
    "dead_list": 12,
    "dead_replay": 12,
    "dead_purge": 12,
    "record": 21,
    "fetch": 21,
    "forget": 21,
    "wait": 22,
    "group_create": 24,
    "group_add": 24,
    "group_close": 24,
    "group_get": 24,
    "state_read": 25,
    "state_write": 25,
    "state_delete": 25,
    "state_scan": 25,
    "limit_take": 26,
    "list": 27,
    "listed": 27,
    "list_all": 27,
}
_HERE: Final = Path(__file__).parent


def leaves(error: BaseException) -> list[BaseException]:
    """The broken laws in ``error``, its groups and causes; where there is none, what it is made of."""
    parts = _parts(error)
    found = [broken for each in parts if (broken := _find(each)) is not None]
    others = [each for each in parts if _find(each) is None]
    return list(dict.fromkeys([*found, *others]))


def law_of(error: BaseException) -> int:
    """The law that ``error``, of a model's test, is about; 0 when it tells none."""
    if isinstance(error, LawBroken):
        return error.number
    return _LAWS.get(_method(error), 0)


def told(error: BaseException) -> str:
    """The message, and the example that hypothesis found (it is in the notes)."""
    if isinstance(error, LawBroken):
        words = str(error)
    else:
        words = f"{type(error).__name__}: {error}"
        if method := _method(error):
            words = f"no law: the adapter raised {type(error).__name__} in {method}: {error}"
    return "\n".join([words, *getattr(error, "__notes__", ())])


def _parts(error: BaseException) -> list[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    parts = [part for each in error.exceptions for part in _parts(each)]
    for part in parts:
        for note in getattr(error, "__notes__", ()):
            part.add_note(note)
    return parts


def _find(error: BaseException | None) -> LawBroken | None:
    if error is None or isinstance(error, LawBroken):
        return error
    inner = [*getattr(error, "exceptions", ()), error.__cause__, error.__context__]
    return next((found for each in inner if (found := _find(each)) is not None), None)


def _method(error: BaseException) -> str:
    """The port's method that raised it: of the suite's own frames with such a name, the innermost."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(_HERE)]
    if not ours or ours[-1] is frames[-1]:  # the suite's own mistake, not the adapter's
        return ""
    return next((frame.name for frame in reversed(ours) if frame.name in _LAWS), "")
