"""Arguments, checked: an error names the value, what was expected, and the way out. Pure."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from types import NoneType
from typing import Any, Final, NamedTuple, TypeVar

from stem_core.clock import seconds

__all__ = [
    "FLAG",
    "LENGTH",
    "LENGTH_OR_NONE",
    "TEXT",
    "TEXT_OR_NONE",
    "WHOLE",
    "WHOLE_OR_NONE",
    "Kind",
    "check_count",
    "check_keywords",
    "check_kind",
    "check_labels",
    "duration",
    "positive_duration",
    "shown",
    "suggesting",
]

T = TypeVar("T")

#: Seconds of the longest duration: an instant so far away is one in every store.
_LONGEST: Final = 100 * 366 * 86_400.0
#: The largest count: what a store keeps of it must fit its columns.
_MOST: Final = 2**31 - 1


class Kind(NamedTuple):
    """The types an argument may have, and the words for them. True and False are numbers only to Python."""

    types: tuple[type, ...]
    words: str

    def fits(self, value: object) -> bool:
        """Whether ``value`` is of this kind."""
        return isinstance(value, self.types) and (not isinstance(value, bool) or bool in self.types)


TEXT: Final = Kind((str,), "text")
TEXT_OR_NONE: Final = Kind((str, NoneType), "text or None")
WHOLE: Final = Kind((int,), "a whole number")
WHOLE_OR_NONE: Final = Kind((int, NoneType), "a whole number or None")
FLAG: Final = Kind((bool,), "True or False")
LENGTH: Final = Kind((int, float, timedelta), "seconds or a timedelta")
LENGTH_OR_NONE: Final = Kind((int, float, timedelta, NoneType), "seconds, a timedelta or None")


def check_kind(name: str, value: object, kind: Kind) -> None:
    """:raises TypeError: ``value`` is of another kind."""
    if not kind.fits(value):
        raise TypeError(f"{name}={shown(value)} must be {kind.words}")


def check_count(name: str, value: Any, least: int = 1) -> None:
    """:raises TypeError: ``value`` is no whole number. :raises ValueError: it is less than ``least``, or too large."""
    check_kind(name, value, WHOLE)
    if value < least:
        raise ValueError(f"{name}={value} must be at least {least}")
    if value > _MOST:
        raise ValueError(f"{name}={value} must be at most {_MOST}")


def check_labels(headers: Any, meta: Any) -> None:
    """What goes with a call; the values of meta are checked when it is sealed.

    :raises TypeError: one of them is no mapping, or has a key or a header that is no text.
    """
    for name, given in (("headers", headers), ("meta", meta)):
        if not isinstance(given, Mapping):
            raise TypeError(f"{name}={shown(given)} must be a mapping: write {name}={{'name': 'value'}}")
        for key in given:
            if not isinstance(key, str) or not key.isprintable():
                raise TypeError(f"{name} has the key {key!r}, and keys must be printable text")
    for key, value in headers.items():
        if not isinstance(value, str):
            raise TypeError(f"header {key!r}={shown(value)} must be text; what is not goes into meta=")


def duration(name: str, value: Any) -> float:
    """A duration, 0 to a century, as float seconds.

    :raises TypeError: it is none. :raises ValueError: it is negative or too long.
    """
    check_kind(name, value, LENGTH)
    result = seconds(value)
    if not 0 <= result <= _LONGEST:
        raise ValueError(f"{name}={value!r} is not a duration of 0 to {_LONGEST:.0f} seconds (a century)")
    return result


def positive_duration(name: str, value: Any) -> float:
    """:func:`duration`, of more than nothing."""
    result = duration(name, value)
    if result == 0:
        raise ValueError(f"{name}={value!r} must be longer than 0 seconds")
    return result


def check_keywords(given: Iterable[str], known: Iterable[str], of: str, elsewhere: Mapping[str, str]) -> None:
    """Refuse what is misspelt, or belongs somewhere else.

    :param of: what has the ``known`` fields. :param elsewhere: where other names belong.
    :raises TypeError: a name is not known.
    """
    fields = sorted(known)
    for name in given:
        if name in fields:
            continue
        if name in elsewhere:
            raise TypeError(f"{of} has no {name!r}: {elsewhere[name]}")
        from difflib import get_close_matches  # of errors alone

        close = get_close_matches(name, fields, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(fields)}"
        raise TypeError(f"{of} has no {name!r}; {hint}")


def suggesting(elsewhere: Callable[[], Mapping[str, str]] = dict) -> Callable[[type[T]], type[T]]:
    """A decorator of dataclasses: a keyword that is not known is refused with the one that was meant.

    :param elsewhere: where names belong that are no fields of the class.
    """

    def decorate(kind: type[T]) -> type[T]:
        known: Mapping[str, Any] = kind.__dict__["__dataclass_fields__"]
        made = kind.__init__

        @functools.wraps(made)
        def init(self: T, /, *args: Any, **given: Any) -> None:
            if not known.keys() >= given.keys():
                check_keywords(given, known, kind.__name__, elsewhere())
            made(self, *args, **given)

        kind.__init__ = init  # type: ignore[assignment]
        return kind

    return decorate


def shown(value: object) -> str:
    """``repr(value)``, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
