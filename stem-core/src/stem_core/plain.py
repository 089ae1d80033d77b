"""Rich Python values as plain data, and the check that decoded data is plain. Pure.

*Plain data* is what every value encoder carries exactly: None, bool, int of -2**63 to 2**64-1, finite float,
str without lone surrogates, list, dict with str keys, and bytes where the format has them; at most
:data:`MAX_NESTING` containers deep. :func:`to_plain` turns dataclasses, ``msgspec.Struct``, attrs and pydantic
objects, named tuples, tuples, sets, enums, datetimes, UUIDs, Decimals and timedeltas into it, in the
form ``msgspec.convert(value, type, str_keys=True)`` turns back into the declared type.

Paths in errors start at ``$``, the value given to the encoder: ``$.order.lines[3].price``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Final
from uuid import UUID

import msgspec

from stem_core.errors import DecodeError, EncodeError

__all__ = ["MAX_CONTAINERS", "MAX_NESTING", "check_plain", "in_arguments", "in_result", "to_plain"]

MAX_NESTING: Final = 64
#: Most lists and maps of one encoded value: a byte that opens one becomes a hundred bytes of Python.
MAX_CONTAINERS: Final = 50_000
_LOWEST: Final = -(2**63)
_HIGHEST: Final = 2**64 - 1
_LONG: Final = 16
_TEXTUAL: Final = (datetime, date, time, timedelta, UUID)
_TOO_DEEP: Final = f"containers nested more than {MAX_NESTING} deep"


def to_plain(value: object, *, binary: bool) -> Any:
    """``value`` as plain data; bytes stay bytes with ``binary``, else become base64 text.

    :raises EncodeError: something in it cannot travel; the message starts with the path to it.
    """
    try:
        return _plain(value, binary, 0)
    except _Fault as fault:
        raise EncodeError(str(fault)) from None


def check_plain(value: object, *, binary: bool, error: type[Exception] = DecodeError) -> None:
    """Check that ``value`` is plain data, of exactly these types.

    :raises DecodeError: (or ``error``) it is not; the message starts with the path.
    """
    try:
        _check(value, binary, 0)
    except _Fault as fault:
        raise error(str(fault)) from None


def in_arguments(error: EncodeError, task: str) -> EncodeError:
    """An error of encoding ``[positional list, keyword map]``, its path as the caller knows it: ``args.order``."""
    text = str(error)
    for start in ("$[0]", "$[1]"):  # args[2] is the third positional one, args.order the one called order
        if text.startswith(start):
            return EncodeError(f"args{text.removeprefix(start)} (of task {task!r})")
    return error


def in_result(error: EncodeError, task: str) -> EncodeError:
    """An error of encoding a result, its path as whoever wrote the task knows it: ``result.order``."""
    text = str(error)
    return (
        EncodeError(f"result{text.removeprefix('$')} (of task {task!r})") if text.startswith("$") else error
    )


class _Fault(Exception):
    """What is wrong; each container it leaves puts its step in front of ``path``."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.path = ""

    def __str__(self) -> str:
        return f"${self.path}: {self.problem}"


def _plain(value: Any, binary: bool, depth: int) -> Any:
    kind = type(value)
    if kind is str:
        return value if value.isascii() else _text(value)
    if value is None or kind is bool:
        return value
    if kind is int or kind is float:
        return _number(value)
    if kind is list or kind is tuple:
        return _items(value, binary, depth)
    if kind is dict:
        return _entries(value, binary, depth)
    return _rich(value, binary, depth)


def _items(value: Any, binary: bool, depth: int) -> list[Any]:
    if depth >= MAX_NESTING:
        raise _Fault(_TOO_DEEP)
    if len(value) > _LONG and _is_even(value):
        return list(value)
    result: list[Any] = []
    try:
        for item in value:
            result.append(_plain(item, binary, depth + 1))  # noqa: PERF401 (a fault needs the index)
    except _Fault as fault:
        fault.path = f"[{len(result)}]{fault.path}"
        raise
    return result


def _entries(value: Mapping[Any, Any], binary: bool, depth: int) -> dict[str, Any]:
    if depth >= MAX_NESTING:
        raise _Fault(_TOO_DEEP)
    result: dict[str, Any] = {}
    for key, item in value.items():
        name = key if type(key) is str and key.isascii() else _key(key)
        if name in result:
            raise _Fault(f"two keys of a mapping are {name!r} as text")
        try:
            result[name] = _plain(item, binary, depth + 1)
        except _Fault as fault:
            fault.path = f".{name}{fault.path}"
            raise
    return result


def _rich(value: Any, binary: bool, depth: int) -> Any:
    if isinstance(value, Enum):
        return _plain(value.value, binary, depth)
    if isinstance(value, _TEXTUAL):
        return msgspec.to_builtins(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value) if binary else msgspec.to_builtins(bytes(value))
    if isinstance(value, Decimal):
        if value.is_finite():
            return str(value)
        raise _Fault(f"Decimal {value} is not a finite number")
    if isinstance(value, AbstractSet):
        # A set has no order of its own; sorted, the same set is the same bytes.
        return sorted(_items(value, binary, depth), key=repr)
    if isinstance(value, Mapping):
        return _entries(value, binary, depth)
    if isinstance(value, list | tuple):
        return _items(value, binary, depth)
    for base in (str, int, float):
        if isinstance(value, base):
            return _plain(base(value), binary, depth)
    fields = _fields(value)
    if fields is None:
        raise _Fault(
            f"a value of type {_named(value)} cannot travel; send plain data, a dataclass, a msgspec.Struct, or an "
            "id the task can look it up by"
        )
    return _items(fields, binary, depth) if isinstance(fields, list) else _entries(fields, binary, depth)


def _fields(value: Any) -> dict[str, Any] | list[Any] | None:
    """The fields of an object that declares them, by the names they travel under; None for any other."""
    kind = type(value)
    if isinstance(value, type):
        return None
    if isinstance(value, msgspec.Struct):
        return _struct(value)
    if dataclasses.is_dataclass(kind):
        return {each.name: getattr(value, each.name) for each in dataclasses.fields(kind)}
    attributes = getattr(kind, "__attrs_attrs__", None)
    if attributes is not None:
        return {each.name: getattr(value, each.name) for each in attributes}
    if hasattr(kind, "__pydantic_fields__"):
        return dict(value.model_dump(mode="python", by_alias=True))
    return None


def _struct(value: msgspec.Struct) -> dict[str, Any] | list[Any]:
    config = value.__struct_config__
    if config.array_like:
        tag = [] if config.tag is None else [config.tag]
        return tag + [getattr(value, name) for name in value.__struct_fields__]
    result: dict[str, Any] = {} if config.tag_field is None else {config.tag_field: config.tag}
    for encoded, name in zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True):
        field = getattr(value, name)
        if field is not msgspec.UNSET:
            result[encoded] = field
    return result


def _key(key: Any) -> str:
    if isinstance(key, Enum):
        key = key.value
    if isinstance(key, str):
        return _text(str(key))
    if isinstance(key, _TEXTUAL):
        return str(msgspec.to_builtins(key))
    if isinstance(key, int | Decimal) and not isinstance(key, bool):
        return str(key)
    raise _Fault(f"a {_named(key)} cannot be the key of a mapping; use text")


def _number(value: float) -> float:
    if isinstance(value, int):
        if not _LOWEST <= value <= _HIGHEST:
            raise _Fault("an int of more than 64 bits; send it as text")
    elif not math.isfinite(value):
        raise _Fault(f"{value} is not a finite number")
    return value


def _is_even(items: Any) -> bool:
    """Whether all items are scalars of one type and plain: the speed of C for long lists of numbers or text."""
    kinds = set(map(type, items))
    if kinds == {int}:
        return bool(min(items) >= _LOWEST and max(items) <= _HIGHEST)
    if kinds == {float}:
        return all(map(math.isfinite, items))
    return kinds == {str} and all(map(str.isascii, items))


def _text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise _Fault(f"text with a lone surrogate at index {error.start}, which is not Unicode") from None
    return value


def _named(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _check(value: Any, binary: bool, depth: int) -> None:
    kind = type(value)
    if kind is str:
        if not value.isascii():
            _text(value)
    elif kind is int or kind is float:
        _number(value)
    elif kind is list:
        _check_items(value, binary, depth)
    elif kind is dict:
        _check_entries(value, binary, depth)
    elif value is not None and kind is not bool and not (binary and kind is bytes):
        raise _Fault(f"a {_named(value)} is not plain data")


def _check_items(value: list[Any], binary: bool, depth: int) -> None:
    if depth >= MAX_NESTING:
        raise _Fault(_TOO_DEEP)
    if len(value) > _LONG and _is_even(value):
        return
    index = 0
    try:
        for index, item in enumerate(value):  # noqa: B007 (index names the place of a fault)
            kind = type(item)
            if (kind is int and _LOWEST <= item <= _HIGHEST) or (kind is str and item.isascii()):
                continue
            _check(item, binary, depth + 1)
    except _Fault as fault:
        fault.path = f"[{index}]{fault.path}"
        raise


def _check_entries(value: dict[Any, Any], binary: bool, depth: int) -> None:
    if depth >= MAX_NESTING:
        raise _Fault(_TOO_DEEP)
    for key, item in value.items():
        if type(key) is not str:
            raise _Fault(f"a mapping with a key that is a {_named(key)}, not text")
        if not key.isascii():
            _text(key)
        kind = type(item)
        if (kind is int and _LOWEST <= item <= _HIGHEST) or (kind is str and item.isascii()):
            continue
        try:
            _check(item, binary, depth + 1)
        except _Fault as fault:
            fault.path = f".{key}{fault.path}"
            raise
