"""What a caller may ask of a task: declared with it, or for one publish.

Durations are given as float seconds or ``timedelta`` and kept as float seconds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from types import NoneType
from typing import Any, Final, Literal

import msgspec

from stem_core.checks import (
    FLAG,
    LENGTH,
    LENGTH_OR_NONE,
    TEXT,
    TEXT_OR_NONE,
    WHOLE,
    WHOLE_OR_NONE,
    Kind,
    check_count,
    check_kind,
    duration,
    positive_duration,
    shown,
    suggesting,
)
from stem_core.clock import instant
from stem_core.scripts import importable

__all__ = [
    "UNSET",
    "Adjustment",
    "Duration",
    "TaskEnqueueOptions",
    "TaskMetadata",
    "TaskOptions",
    "TaskRetryPolicy",
    "Unset",
]

Duration = float | timedelta


class Unset(Enum):
    """The type of :data:`UNSET`."""

    UNSET = "UNSET"

    def __repr__(self) -> str:
        return "UNSET"

    def __bool__(self) -> bool:
        return False


#: "Not given", so that a default can be overridden back to any value, None included.
UNSET: Final = Unset.UNSET


def not_of_a_task() -> Mapping[str, str]:
    """What ``@stem.task`` and ``TaskOptions`` do not take, and where it goes."""
    return {
        each.name: f"it is of one publish; write task.with_options({each.name}=...)"
        for each in dataclasses.fields(TaskEnqueueOptions)
    } | {"time_limit": "write hard_time_limit=... or soft_time_limit=..."}


def _not_of_a_publish() -> Mapping[str, str]:
    return {
        each.name: f"it is of the task; declare it with @stem.task({each.name}=...)"
        for kind in (TaskOptions, TaskMetadata)
        for each in dataclasses.fields(kind)
    } | {
        "delay": "write countdown=...",
        "hard_time_limit": "write time_limit=...",
        "headers": "it goes beside the options, to enqueue(..., headers=...) or builder().headers(...)",
        "max_retries": "write retry_policy=TaskRetryPolicy(max_retries=...)",
        "meta": "it goes beside the options, to enqueue(..., meta=...) or builder().meta(...)",
    }


def class_names(given: Any, option: str) -> tuple[str, ...]:
    """The dotted names of exception classes, of one or several; names are compared, never imported.

    :raises TypeError: one is neither an exception class nor its name.
    """
    if not isinstance(given, str | type | Iterable):
        raise TypeError(f"{option}={shown(given)} must be exception classes or their dotted names")
    names = []
    for each in (given,) if isinstance(given, str | type) else given:
        if isinstance(each, type) and issubclass(each, BaseException):
            names.append(f"{importable(each.__module__)}.{each.__qualname__}")
        elif isinstance(each, str):
            names.append(each)
        else:
            raise TypeError(f"{option}: {each!r} is neither an exception class nor its dotted name")
    return tuple(names)


class TaskRetryPolicy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When a failed run is tried again, and after how long.

    The n-th retry (from 0) waits ``default_delay``, or with ``backoff`` ``default_delay * 2**n``, at most
    ``backoff_max`` seconds; ``jitter`` takes the delay anywhere between half of it and all of it.
    ``auto_retry_for`` names the exception classes that are retried (empty: all),
    ``dont_auto_retry_for`` those that never are; both take classes or dotted names, one or several, and match subclasses.
    """

    backoff: bool = False
    backoff_max: float | None = None
    jitter: bool = True
    default_delay: float = 0.0
    max_retries: int | None = None
    auto_retry_for: tuple[str, ...] = ()
    dont_auto_retry_for: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_kinds(self, _POLICY_KINDS)
        put = msgspec.structs.force_setattr
        put(self, "default_delay", duration("default_delay", self.default_delay))
        if self.backoff_max is not None:
            put(self, "backoff_max", duration("backoff_max", self.backoff_max))
        if self.max_retries is not None:
            _check_retries(self.max_retries)
        for name in ("auto_retry_for", "dont_auto_retry_for"):
            put(self, name, class_names(getattr(self, name), name))


@suggesting(not_of_a_task)
@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """How a task runs unless one publish says otherwise."""

    queue: str = "default"
    max_retries: int = 0
    soft_time_limit: Duration | None = None
    hard_time_limit: Duration | None = None
    rate_limit: str | None = None
    group_rate_limit: str | None = None
    group_rate_key: str | None = None
    group_rate_key_header: str = "tenant"
    rate_limiter_failure_mode: Literal["open", "closed"] = "open"
    max_concurrency: int | None = None
    concurrency_key: str | None = None
    unique: bool = False
    unique_for: Duration | None = None
    unique_key: str | None = None
    priority: int = 0
    acks_late: bool = True
    visibility_timeout: Duration | None = None
    retry_policy: TaskRetryPolicy | None = None
    isolation: Literal["async", "thread", "process"] | None = None
    ignore_result: bool = False
    result_ttl: Duration = 86_400.0

    def __post_init__(self) -> None:
        _check_kinds(self, _TASK_KINDS)
        check_name(self.queue, "queue name")
        for name in ("soft_time_limit", "hard_time_limit", "unique_for", "visibility_timeout", "result_ttl"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, positive_duration(name, value))
        _check_priority(self.priority)
        _check_retries(self.max_retries)
        if self.max_concurrency is not None:
            check_count("max_concurrency", self.max_concurrency)
        if self.isolation not in (None, "async", "thread", "process"):
            raise ValueError(f"isolation={self.isolation!r} is not 'async', 'thread' or 'process'")
        if self.rate_limiter_failure_mode not in ("open", "closed"):
            raise ValueError(
                f"rate_limiter_failure_mode={self.rate_limiter_failure_mode!r} is not 'open' or 'closed'"
            )
        for name in ("rate_limit", "group_rate_limit"):
            if getattr(self, name) is not None:
                parse_rate(getattr(self, name), name)
        for name, needed in _NOTHING_WITHOUT.items():
            if getattr(self, name) is not None and not getattr(self, needed):
                raise ValueError(f"{name}={getattr(self, name)!r} does nothing without {needed}")
        if not self.acks_late and self.max_retries:
            raise ValueError(
                f"acks_late=False with max_retries={self.max_retries}: a task acked before it starts cannot be "
                "retried; drop one of the two"
            )


@suggesting(_not_of_a_publish)
@dataclass(frozen=True, slots=True, kw_only=True)
class TaskEnqueueOptions:
    """What one publish asks for. A field left UNSET falls back to the task's options."""

    task_id: str | Unset | None = UNSET
    eta: datetime | Unset | None = UNSET
    countdown: Duration | Unset | None = UNSET
    expires: datetime | Duration | Unset | None = UNSET
    queue: str | Unset = UNSET
    priority: int | Unset = UNSET
    exchange: str | Unset | None = UNSET
    routing_key: str | Unset | None = UNSET
    producer: str | Unset | None = UNSET
    time_limit: Duration | Unset | None = UNSET
    soft_time_limit: Duration | Unset | None = UNSET
    serializer: str | Unset | None = UNSET
    compression: str | Unset | None = UNSET
    ignore_result: bool | Unset = UNSET
    shadow: str | Unset | None = UNSET
    reply_to: str | Unset | None = UNSET
    add_to_parent: bool | Unset = UNSET
    retry: bool | Unset = UNSET
    publish_retry_policy: TaskRetryPolicy | Unset | None = UNSET
    retry_policy: TaskRetryPolicy | Unset | None = UNSET
    publish_connection: Any = field(default=UNSET, repr=False)
    link: Sequence[Any] | Unset = UNSET
    link_error: Sequence[Any] | Unset = UNSET

    def __post_init__(self) -> None:
        _check_kinds(self, _ENQUEUE_KINDS)
        for name, what in (("queue", "queue name"), ("reply_to", "queue name (reply_to)")):
            value = getattr(self, name)
            if value is not UNSET and (value is not None or name == "queue"):
                check_name(value, what)
        if isinstance(self.eta, datetime):
            object.__setattr__(self, "eta", _aware("eta", self.eta))
        if isinstance(self.expires, datetime):
            object.__setattr__(self, "expires", _aware("expires", self.expires))
        elif isinstance(self.expires, int | float | timedelta):
            object.__setattr__(self, "expires", positive_duration("expires", self.expires))
        if isinstance(self.countdown, int | float | timedelta):
            object.__setattr__(self, "countdown", duration("countdown", self.countdown))
        for name in ("time_limit", "soft_time_limit"):
            value = getattr(self, name)
            if isinstance(value, int | float | timedelta):
                object.__setattr__(self, name, positive_duration(name, value))
        if isinstance(self.priority, int):
            _check_priority(self.priority)
        if isinstance(self.task_id, str):
            check_id(self.task_id)
        for name in ("link", "link_error"):
            value = getattr(self, name)
            if not isinstance(value, Unset):
                object.__setattr__(self, name, _several(value))

    def merged(self, over: TaskEnqueueOptions | None) -> TaskEnqueueOptions:
        """These options with every field that ``over`` sets taken from it."""
        if over is None:
            return self
        given = {
            each.name: getattr(over, each.name)
            for each in dataclasses.fields(over)
            if getattr(over, each.name) is not UNSET
        }
        return dataclasses.replace(self, **given)


@suggesting()
@dataclass(frozen=True, slots=True, kw_only=True)
class TaskMetadata:
    """What tools and encoders should know of a task; ``args_encoder``/``result_encoder`` beat the app's."""

    description: str = ""
    tags: tuple[str, ...] = ()
    idempotent: bool = False
    attributes: Mapping[str, Any] = field(default_factory=dict)
    args_encoder: Any = None
    result_encoder: Any = None

    def __post_init__(self) -> None:
        _check_kinds(self, _METADATA_KINDS)
        given: object = self.tags  # whatever an application passed
        if isinstance(given, str) or not all(TEXT.fits(each) for each in self.tags):
            raise TypeError(f"tags={shown(self.tags)} must be several texts: write tags=('mail', 'slow')")
        object.__setattr__(self, "tags", tuple(self.tags))


@dataclass(frozen=True, slots=True)
class Adjustment:
    """One thing asked for that an adapter could not do, and what was done in its place."""

    option: str
    requested: Any
    effective: Any
    reason: str


_PERIODS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def parse_rate(text: str, option: str = "rate_limit") -> tuple[int, float]:
    """``"100/m"`` as (permits, period in seconds).

    :raises ValueError: the text is not ``<count>/<s|m|h|d>`` with a positive count.
    """
    count, slash, unit = text.partition("/")
    if not slash or unit not in _PERIODS or not count.strip().isdigit() or int(count) < 1:
        raise ValueError(f"{option}={text!r} is not a rate; write '10/s', '100/m' or '500/h'")
    return int(count), _PERIODS[unit]


def check_id(value: str) -> str:
    """``value`` if it can be a task id: 1 to 128 printable ASCII characters, no spaces.

    :raises ValueError: it cannot.
    """
    if not 1 <= len(value) <= 128 or not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError(
            f"{value!r} is not a task id; use 1 to 128 printable ASCII characters without spaces"
        )
    return value


def check_name(value: Any, what: str) -> str:
    """``value`` if it can name a queue, task or namespace: 1 to 128 printable characters.

    :raises ValueError: it cannot.
    """
    if not isinstance(value, str) or not 1 <= len(value) <= 128 or not value.isprintable():
        raise ValueError(f"{shown(value)} cannot be a {what}; use 1 to 128 printable characters")
    return value


_POLICY: Final = Kind((TaskRetryPolicy, NoneType), "a TaskRetryPolicy or None")

_POLICY_KINDS: Final[Mapping[str, Kind]] = {
    "backoff": FLAG,
    "backoff_max": LENGTH_OR_NONE,
    "jitter": FLAG,
    "default_delay": LENGTH,
    "max_retries": WHOLE_OR_NONE,
}
_TASK_KINDS: Final[Mapping[str, Kind]] = {
    "max_retries": WHOLE,
    "soft_time_limit": LENGTH_OR_NONE,
    "hard_time_limit": LENGTH_OR_NONE,
    "rate_limit": TEXT_OR_NONE,
    "group_rate_limit": TEXT_OR_NONE,
    "group_rate_key": TEXT_OR_NONE,
    "group_rate_key_header": TEXT,
    "max_concurrency": WHOLE_OR_NONE,
    "concurrency_key": TEXT_OR_NONE,
    "unique": FLAG,
    "unique_for": LENGTH_OR_NONE,
    "unique_key": TEXT_OR_NONE,
    "priority": WHOLE,
    "acks_late": FLAG,
    "visibility_timeout": LENGTH_OR_NONE,
    "retry_policy": _POLICY,
    "ignore_result": FLAG,
    "result_ttl": LENGTH,
}
_ENQUEUE_KINDS: Final[Mapping[str, Kind]] = {
    "task_id": TEXT_OR_NONE,
    "eta": Kind((datetime, NoneType), "an aware datetime or None; for seconds from now write countdown=..."),
    "countdown": LENGTH_OR_NONE,
    "expires": Kind(
        (datetime, int, float, timedelta, NoneType),
        "an aware datetime, seconds, a timedelta or None",
    ),
    "priority": WHOLE,
    "exchange": TEXT_OR_NONE,
    "routing_key": TEXT_OR_NONE,
    "producer": TEXT_OR_NONE,
    "time_limit": LENGTH_OR_NONE,
    "soft_time_limit": LENGTH_OR_NONE,
    "serializer": TEXT_OR_NONE,
    "compression": TEXT_OR_NONE,
    "ignore_result": FLAG,
    "shadow": TEXT_OR_NONE,
    "add_to_parent": FLAG,
    "retry": FLAG,
    "publish_retry_policy": _POLICY,
    "retry_policy": _POLICY,
}
_METADATA_KINDS: Final[Mapping[str, Kind]] = {
    "description": TEXT,
    "tags": Kind((tuple, list, set, frozenset, str), "several texts"),
    "idempotent": FLAG,
    "attributes": Kind((Mapping,), "a mapping"),
}
#: Options of a task that only say how another one acts.
_NOTHING_WITHOUT: Final[Mapping[str, str]] = {
    "unique_for": "unique",
    "unique_key": "unique",
    "concurrency_key": "max_concurrency",
    "group_rate_key": "group_rate_limit",
}


def _check_kinds(options: object, kinds: Mapping[str, Kind]) -> None:
    """Refuse here what would be sealed and then refused by the worker that opens it.

    :raises TypeError: a field is of the wrong type.
    """
    for name, kind in kinds.items():
        value = getattr(options, name)
        if value is not UNSET:
            check_kind(name, value, kind)


def _aware(name: str, value: datetime) -> datetime:
    try:
        return instant(value)
    except ValueError as error:
        raise ValueError(f"{name}={error}") from None


def _several(given: Any) -> tuple[Any, ...]:
    """One signature, several, or None for none."""
    if given is None:
        return ()
    return tuple(given) if isinstance(given, list | tuple) else (given,)


def _check_retries(value: int) -> None:
    if value < 0:
        raise ValueError(f"max_retries={value} is negative; 0 means never retry")
    check_count("max_retries", value, 0)


def _check_priority(value: int) -> None:
    if not 0 <= value <= 9:
        raise ValueError(f"priority={value} is not between 0 and 9 (9 is most urgent)")
