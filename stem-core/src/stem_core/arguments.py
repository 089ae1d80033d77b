"""A handler's parameters: binding a call to them, and making decoded data what they are annotated with.

Pure. Annotations are resolved at first use, so a task may name a class defined below it.
"""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

import msgspec

from stem_core.errors import ConfigurationError, DecodeError

__all__ = ["Parameters", "convert"]

Kind = inspect.Parameter
#: A value of one of these very types is what its annotation asks for, and needs no conversion.
_EXACT: Final = frozenset({str, int, float, bool})
_BY_POSITION: Final = (Kind.POSITIONAL_ONLY, Kind.POSITIONAL_OR_KEYWORD)


def convert(value: object, type: Any, path: str = "value") -> Any:
    """Plain data as an instance of ``type``.

    Dataclasses, Structs, attrs classes, TypedDict, NamedTuple, enums, datetime, UUID, Decimal, bytes, sets,
    tuples, Optional, Union, containers of them, and pydantic models. Any other class must be met as it is.

    :raises DecodeError: the data does not fit, with the path to the value at fault.
    """
    if type is Any or type is object or type is inspect.Parameter.empty:
        return value
    try:
        return msgspec.convert(value, type, dec_hook=_custom, str_keys=True)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$")
        raise DecodeError(f"{path}{place.rstrip('`')}: {message}") from None
    except TypeError as error:
        # msgspec refuses unions of several classes before it looks at the data; try the members in turn.
        members = _union_members(type)
        if not members:
            return _convert_inside(value, type, path, error)
    return _first_that_fits(value, members, type, path)


def _is_exactly(value: object, kind: Any) -> bool:
    return type(value) is kind and kind in _EXACT


def _union_members(type: Any) -> tuple[Any, ...]:
    return get_args(type) if get_origin(type) in (Union, types.UnionType) else ()


def _first_that_fits(value: object, members: Sequence[Any], type: Any, path: str) -> Any:
    for member in members:
        try:
            return convert(value, member, path)
        except DecodeError:
            continue
    raise DecodeError(f"{path}: {_kind(value)} fits no member of {type}")


def _convert_inside(value: object, type: Any, path: str, cause: TypeError) -> Any:
    """Containers whose members msgspec cannot describe together."""
    origin, inner = get_origin(type), get_args(type)
    if origin in (list, set, frozenset, Sequence) and isinstance(value, list | set | tuple | frozenset):
        items = [convert(each, inner[0], f"{path}[{index}]") for index, each in enumerate(value)]
        return items if origin is Sequence else origin(items)
    if origin is tuple and isinstance(value, list | tuple):
        kinds = [inner[0]] * len(value) if inner[-1] is Ellipsis else inner
        if len(kinds) == len(value):
            pairs = enumerate(zip(value, kinds, strict=True))
            return tuple(convert(each, kind, f"{path}[{index}]") for index, (each, kind) in pairs)
    if origin in (dict, Mapping) and isinstance(value, Mapping):
        return {
            convert(key, inner[0], f"{path} key"): convert(each, inner[1], f"{path}[{key!r}]")
            for key, each in value.items()
        }
    raise DecodeError(f"{path}: {_kind(value)} cannot be made a {type}: {cause}") from None


def _custom(kind: Any, value: Any) -> Any:
    """What msgspec does not know: pydantic models, and classes that must be met as they are."""
    origin = get_origin(kind) or kind
    if isinstance(origin, type) and isinstance(value, origin):
        return value
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None and isinstance(origin, type) and issubclass(origin, pydantic.BaseModel):
        try:
            return kind.model_validate(value)
        except pydantic.ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(each) for each in first["loc"])
            raise msgspec.ValidationError(f"{kind.__name__}.{place}: {first['msg']}") from None
    raise msgspec.ValidationError(f"Expected `{getattr(kind, '__name__', kind)}`, got `{_kind(value)}`")


def _kind(value: object) -> str:
    return type(value).__name__


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function that carries the annotations: unwrapped, or an object's ``__call__``."""
    found = inspect.unwrap(function)
    return found if inspect.isroutine(found) else type(found).__call__


class Parameters:
    """What a handler takes. Made once per task; read only."""

    def __init__(self, function: Callable[..., Any], names: Mapping[str, Any] | None = None) -> None:
        """:param names: where to look for annotations beside the function's own module (a caller's locals).

        :raises ConfigurationError: a ``TaskContext`` stands where nobody fills it in.
        """
        self._function = function
        self._names = names
        self._plain = _plain(function)
        self._types: dict[str, Any] | None = None
        #: The types of all positional parameters, once resolved, where values of them need no conversion.
        self._exact: tuple[type, ...] | None = None
        every = list(inspect.signature(function).parameters.values())
        self.wants_context = bool(every) and every[0].kind in _BY_POSITION and self._is_context(every[0])
        self._all = every[1:] if self.wants_context else every
        for each in self._all:
            if self._is_context(each):
                where = getattr(function, "__qualname__", repr(function))
                raise ConfigurationError(
                    f"{where}: only a first parameter is filled in with the TaskContext; move {each.name!r} there, or call "
                    "current_task()"
                )
        self._signature = inspect.Signature(self._all)
        positional = [each for each in self._all if each.kind in _BY_POSITION]
        self._positional = tuple(each.name for each in positional)
        self._required = sum(1 for each in positional if each.default is Kind.empty)
        self._rest = next((each.name for each in self._all if each.kind is Kind.VAR_POSITIONAL), None)
        self._more = next((each.name for each in self._all if each.kind is Kind.VAR_KEYWORD), None)
        self._only_by_keyword = any(
            each.kind is Kind.KEYWORD_ONLY and each.default is Kind.empty for each in self._all
        )

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Check that the handler can be called so.

        :raises TypeError: it cannot; the message names the handler and the argument.
        """
        if kwargs or not self._take(len(args)):
            self._bind(args, kwargs)

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any], inputs: int = 0) -> None:
        """:meth:`bind` with ``inputs`` arguments more, put first.

        :raises TypeError: as :meth:`bind`.
        """
        if kwargs or not self._take(inputs + len(args)):
            self._bind((*(None,) * inputs, *args), kwargs)

    def check_partial(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Check what is given so far; more may come.

        :raises TypeError: these can be part of no call.
        """
        self._bind(args, kwargs, partial=True)

    def convert(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Decoded arguments as the handler's annotations say.

        :raises DecodeError: they do not fit, with the path to the value at fault.
        """
        if not kwargs and tuple(map(type, args)) == self._exact:  # most calls
            return list(args), {}
        if kwargs or not self._take(len(args)):
            try:
                self._bind(args, kwargs)
            except TypeError as error:
                raise DecodeError(str(error)) from None
        if not args and not kwargs:
            return [], {}
        types = self._resolved()
        count = len(self._positional)
        by_position = [
            value if (kind := types[name]) is Any or _is_exactly(value, kind) else convert(value, kind, name)
            for name, value in zip(self._positional, args, strict=False)
        ]
        if len(args) > count and self._rest:
            kind = types[self._rest]
            by_position += [
                convert(value, kind, f"{self._rest}[{index}]") for index, value in enumerate(args[count:])
            ]
        by_name = {
            name: convert(value, types[name] if name in types else types[self._more or ""], name)
            for name, value in kwargs.items()
        }
        return by_position, by_name

    @property
    def result_type(self) -> Any:
        """The annotated result, Any when there is none."""
        return self._resolved()["return"]

    def _take(self, count: int) -> bool:
        """Whether the handler can be called with so many positional arguments and no other."""
        return (
            not self._only_by_keyword
            and self._required <= count
            and (count <= len(self._positional) or self._rest is not None)
        )

    def _bind(self, args: Sequence[Any], kwargs: Mapping[str, Any], partial: bool = False) -> None:
        bind = self._signature.bind_partial if partial else self._signature.bind
        try:
            bind(*args, **kwargs)
        except TypeError as error:
            name = getattr(self._function, "__qualname__", repr(self._function))
            raise TypeError(f"{name}{self._signature}: {error}") from None

    def _is_context(self, parameter: inspect.Parameter) -> bool:
        annotation = parameter.annotation
        if isinstance(annotation, str):
            text = annotation.strip("'\"")
            scope = {**getattr(self._plain, "__globals__", {}), **(self._names or {})}
            annotation = scope.get(text)
            if annotation is None:  # not importable here, or only under TYPE_CHECKING
                return text.rpartition(".")[2] == "TaskContext"
        module = str(getattr(annotation, "__module__", ""))
        return getattr(annotation, "__name__", "") == "TaskContext" and module.startswith("stem_core")

    def _resolved(self) -> dict[str, Any]:
        if self._types is None:
            # A context is never converted, so its import may be for type checkers only.
            scope = {"TaskContext": Any, **self._closure(), **(self._names or {})}
            try:
                hints = get_type_hints(self._plain, localns=scope, include_extras=True)
            except NameError as error:
                where = getattr(self._function, "__qualname__", repr(self._function))
                raise ConfigurationError(
                    f"{where}: an annotation cannot be resolved ({error}). Import the name where the task is "
                    "defined, not only under TYPE_CHECKING."
                ) from None
            self._types = {
                name: hints.get(name, Any) for name in (*(each.name for each in self._all), "return")
            }
            kinds = tuple(self._types[name] for name in self._positional)
            # A class first: not every annotation can be looked up in a set.
            if all(type(each) is type and each in _EXACT for each in kinds) and not self._only_by_keyword:
                self._exact = kinds
        return self._types

    def _closure(self) -> Mapping[str, Any]:
        return inspect.getclosurevars(self._plain).nonlocals if inspect.isfunction(self._plain) else {}
