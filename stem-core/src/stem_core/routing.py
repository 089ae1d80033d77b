"""Which queue a task goes to when nobody said: patterns, priority ranges, a default. Pure.

As TOML, named by ``STEM_ROUTING_CONFIG``:

    default_queue = "default"

    [[routes]]
    task = "mail.*"              # a pattern: * ? [abc]
    queue = "mail"
    priority = 5                 # unless the task or the publish has one
    priority_range = [2, 7]      # what is outside is moved to the nearer end
    exchange = "events"          # these three need a broker with routing
    routing_key = "mail.out"
    producer = "billing"

    [queues.critical]
    priority_range = [7, 9]

The first route that matches counts. A queue named by the publish beats one named by the task, which
beats the route's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec

from stem_core.errors import ConfigurationError
from stem_core.options import check_name

__all__ = ["QueueRule", "Route", "Routing", "routing_from"]


@dataclass(frozen=True, slots=True)
class Route:
    """Where tasks go whose name matches ``task``."""

    task: str
    queue: str | None = None
    priority: int | None = None
    priority_range: tuple[int, int] | None = None
    exchange: str | None = None
    routing_key: str | None = None
    producer: str | None = None

    def __post_init__(self) -> None:
        if self.queue is not None:
            check_name(self.queue, "queue name")
        if self.priority is not None and not 0 <= self.priority <= 9:
            raise ValueError(f"route {self.task!r}: priority={self.priority} is not between 0 and 9")
        _check_range(self.priority_range, f"route {self.task!r}")


@dataclass(frozen=True, slots=True)
class QueueRule:
    """What holds for everything on one queue."""

    priority_range: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        _check_range(self.priority_range, "queue")


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """The routing of one application."""

    default_queue: str = "default"
    routes: Sequence[Route] = ()
    queues: Mapping[str, QueueRule] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name(self.default_queue, "queue name")

    @property
    def named_queues(self) -> frozenset[str]:
        """Every queue that it names: tasks may go there."""
        routed = (each.queue for each in self.routes if each.queue is not None)
        return frozenset({self.default_queue, *routed, *self.queues})

    def route(self, task: str) -> Route | None:
        """The first route whose pattern matches the task's name."""
        return next((each for each in self.routes if fnmatchcase(task, each.task)), None)

    def priority(self, queue: str, route: Route | None, wanted: int) -> int:
        """``wanted`` within the range of the route, then of the queue."""
        rule = self.queues.get(queue)
        for allowed in (route and route.priority_range, rule and rule.priority_range):
            if allowed:
                wanted = min(max(wanted, allowed[0]), allowed[1])
        return wanted


def routing_from(given: Routing | Mapping[str, Any] | str | Path) -> Routing:
    """A routing from a value, a mapping of the same shape as the TOML, or the path of a TOML file.

    :raises ConfigurationError: the file is missing or wrong; the message names it and the place.
    """
    if isinstance(given, Routing):
        return given
    where = "routing"
    try:
        if isinstance(given, str | Path):
            where = str(given)
            import tomllib

            given = tomllib.loads(Path(given).read_text(encoding="utf-8"))
        if not isinstance(given, Mapping):
            raise TypeError(
                f"a {type(given).__name__}, where a Routing, a mapping or the path of a file is due"
            )
        return msgspec.convert(_strict(given), Routing)
    except (OSError, TypeError, ValueError, msgspec.ValidationError) as error:
        raise ConfigurationError(f"{where}: not a routing: {error}") from error


def _strict(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Refuse what would be ignored: a misspelt key is a route that never works."""
    tables: list[tuple[str, Mapping[str, Any], type[Any]]] = [("", given, Routing)]
    tables += [(f"routes[{i}].", each, Route) for i, each in enumerate(given.get("routes", ()))]
    tables += [(f"queues.{name}.", each, QueueRule) for name, each in given.get("queues", {}).items()]
    for place, table, kind in tables:
        unknown = sorted(set(table) - set(kind.__dataclass_fields__))
        if unknown:
            raise ValueError(
                f"{place}{unknown[0]} is not known; expected {', '.join(kind.__dataclass_fields__)}"
            )
    return given


def _check_range(given: tuple[int, int] | None, where: str) -> None:
    if given is not None and not 0 <= given[0] <= given[1] <= 9:
        raise ValueError(f"{where}: priority_range={list(given)} is not [lowest, highest] within 0 to 9")
