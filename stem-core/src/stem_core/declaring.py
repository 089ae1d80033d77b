"""What ``@stem.task`` makes of a function and the fields given with it."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final

from stem_core.checks import Kind, check_keywords, check_kind
from stem_core.errors import ConfigurationError
from stem_core.options import TaskMetadata, TaskOptions, not_of_a_task
from stem_core.scripts import importable
from stem_core.tasks import Enqueuer, Task

__all__ = ["declared", "default_name"]

_OPTIONS: Final = frozenset(each.name for each in dataclasses.fields(TaskOptions))
_METADATA: Final = frozenset(each.name for each in dataclasses.fields(TaskMetadata))
_FIELDS: Final = {"name", "options", "metadata"} | _OPTIONS | _METADATA


def declared(
    stem: Enqueuer, function: Callable[..., Any], fields: Mapping[str, Any], names: Mapping[str, Any] | None
) -> Task[..., Any]:
    """The task; single fields are taken over those of a whole ``options`` or ``metadata``.

    :raises TypeError: a field is not known, or ``function`` is no function.
    :raises ConfigurationError: a value is wrong, or the function cannot be run so.
    """
    if isinstance(function, str):
        raise TypeError(
            f"{function!r} is not a function; a task's name is a keyword: @stem.task(name={function!r})"
        )
    if not callable(function):
        raise TypeError(f"{function!r} is not a function; @stem.task decorates one")
    if isinstance(function, Task):
        raise TypeError(f"{function!r} is a task already; another Stem takes it with stem.add(task)")
    rest = dict(fields)
    given = rest.pop("name", None)
    name = default_name(function) if given is None else given
    options = rest.pop("options", None) or TaskOptions()
    metadata = rest.pop("metadata", None) or TaskMetadata()
    check_keywords(rest, _FIELDS, f"@stem.task of {name!r}", not_of_a_task())
    for field, value, kind in (("options", options, TaskOptions), ("metadata", metadata, TaskMetadata)):
        check_kind(f"@stem.task of {name!r}: {field}", value, Kind((kind,), f"a {kind.__name__}"))
    try:
        options = dataclasses.replace(options, **{key: rest[key] for key in rest if key in _OPTIONS})
        metadata = dataclasses.replace(metadata, **{key: rest[key] for key in rest if key in _METADATA})
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"Task {name!r}: {error}") from error
    try:
        return Task(stem, function, name=name, options=options, metadata=metadata, names=names)
    except ValueError as error:  # a name that is none, or a class of C code, which has no signature
        raise ConfigurationError(f"Task {name!r}: {error}") from error


def default_name(function: Callable[..., Any]) -> str:
    """``module.function``. A script is called by its file: that is the module workers import it as."""
    module = importable(function.__module__, getattr(inspect.unwrap(function), "__globals__", None))
    return f"{module}.{getattr(function, '__name__', type(function).__name__)}"
