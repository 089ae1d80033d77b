"""What one publish asks for, from its own options, the task's and the routing, and the envelope's fields it comes to. Pure.

What the publish says beats what the task says, which beats the route, which beats the defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import NoneType
from typing import Any, Final

import msgspec

from stem_core.checks import Kind, check_kind
from stem_core.clock import seconds
from stem_core.encoding import TaskPayloadEncoderRegistry
from stem_core.envelope import Envelope, Limits
from stem_core.errors import ConfigurationError
from stem_core.options import (
    UNSET,
    Adjustment,
    TaskEnqueueOptions,
    TaskMetadata,
    TaskOptions,
    TaskRetryPolicy,
    Unset,
    check_name,
)
from stem_core.routing import Routing

__all__ = ["Asked", "fields_of", "limits_of", "resolve"]

_DEFAULTS: Final = TaskOptions()
_NO_METADATA: Final = TaskMetadata()


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Every option of one publish with its value; durations in seconds.

    ``delay_option`` names the option a delay came from. ``countdown`` and a number in ``expires`` count from
    the publish. ``adjustments`` are those of the routing.
    """

    name: str
    queue: str
    priority: int
    options: TaskOptions
    route: Mapping[str, str]
    encoder: str
    result_encoder: str | None
    max_retries: int
    retry_policy: TaskRetryPolicy | None
    not_before: datetime | None = None
    countdown: float = 0.0
    delay_option: str = "countdown"
    expires: datetime | float | None = None
    time_limit: float | None = None
    soft_time_limit: float | None = None
    rate_limit: str | None = None
    group_rate_limit: str | None = None
    max_concurrency: int | None = None
    unique: bool = False
    ignore_result: bool = False
    result_ttl: float = 86_400.0
    shadow: str | None = None
    reply_to: str | None = None
    add_to_parent: bool = True
    task_id: str | None = None
    once: bool = False
    publish_retry: TaskRetryPolicy | None = None
    publish_connection: Any = None
    link: tuple[Any, ...] = ()
    link_error: tuple[Any, ...] = ()
    adjustments: tuple[Adjustment, ...] = ()


def resolve(
    name: str,
    options: TaskOptions | None,
    enqueue: TaskEnqueueOptions,
    metadata: TaskMetadata | None,
    *,
    routing: Routing,
    encoders: TaskPayloadEncoderRegistry,
    default_retry: TaskRetryPolicy,
) -> Asked:
    """Resolve the options of one publish.

    :raises ValueError: a value is out of range, or two cannot go together.
    :raises TypeError: options are of another kind.
    :raises ConfigurationError: an encoder is unknown.
    """
    check_name(name, "task name")
    check_kind("options", options, _OPTIONS_KIND)
    check_kind("enqueue_options", enqueue, _ENQUEUE_KIND)
    task = options or _DEFAULTS
    metadata = metadata or _NO_METADATA
    route = routing.route(name)
    queue = _queue(enqueue, task, routing, None if route is None else route.queue)
    wanted: Any = enqueue.priority if enqueue.priority is not UNSET else task.priority
    if not isinstance(wanted, int):
        raise TypeError(f"priority={wanted!r} is not between 0 and 9 (9 is most urgent)")
    if not wanted and enqueue.priority is UNSET and route is not None and route.priority is not None:
        wanted = route.priority
    priority = routing.priority(queue, route, wanted)
    policy = _or(enqueue.retry_policy, task.retry_policy)
    max_retries = task.max_retries if policy is None or policy.max_retries is None else policy.max_retries
    if max_retries and not task.acks_late:
        raise ValueError(
            f"task {name!r}: acks_late=False with {max_retries} retries: a task acked before it starts cannot be "
            "retried; drop one of the two"
        )
    retry = _or(enqueue.retry, False)
    countdown = _or(enqueue.countdown, None)
    eta = _or(enqueue.eta, None)
    return Asked(
        name=name,
        queue=queue,
        priority=priority,
        options=task,
        route=_route(enqueue, route),
        encoder=_encoder(enqueue, metadata, encoders),
        result_encoder=_result_encoder(metadata, encoders),
        max_retries=max_retries,
        retry_policy=policy,
        not_before=eta,
        countdown=0.0 if eta is not None or countdown is None else float(countdown),
        delay_option="eta" if eta is not None else "countdown",
        expires=_or(enqueue.expires, None),
        time_limit=_or(enqueue.time_limit, task.hard_time_limit),
        soft_time_limit=_or(enqueue.soft_time_limit, task.soft_time_limit),
        rate_limit=task.rate_limit,
        group_rate_limit=task.group_rate_limit,
        max_concurrency=task.max_concurrency,
        unique=task.unique,
        ignore_result=_or(enqueue.ignore_result, task.ignore_result),
        result_ttl=seconds(task.result_ttl),
        shadow=_or(enqueue.shadow, None),
        reply_to=_reply_to(_or(enqueue.reply_to, None)),
        add_to_parent=_or(enqueue.add_to_parent, True),
        task_id=_or(enqueue.task_id, None),
        once=retry or isinstance(enqueue.task_id, str),
        publish_retry=(_or(enqueue.publish_retry_policy, None) or policy or default_retry) if retry else None,
        publish_connection=_or(enqueue.publish_connection, None),
        link=tuple(_or(enqueue.link, ())),
        link_error=tuple(_or(enqueue.link_error, ())),
        adjustments=_moved(wanted, priority, queue),
    )


def _or(value: Any, default: Any) -> Any:
    return default if isinstance(value, Unset) else value


def _queue(enqueue: TaskEnqueueOptions, task: TaskOptions, routing: Routing, routed: str | None) -> str:
    if enqueue.queue is not UNSET:
        return check_name(enqueue.queue, "queue name")
    if task.queue != _DEFAULTS.queue:
        return check_name(task.queue, "queue name")
    return routed or routing.default_queue


def _route(enqueue: TaskEnqueueOptions, route: Any) -> dict[str, str]:
    found = {}
    for name in ("exchange", "routing_key", "producer"):
        value = _or(getattr(enqueue, name), getattr(route, name, None))
        if value is not None:
            if not isinstance(value, str):
                raise TypeError(f"{name}={value!r} must be text")
            found[name] = value
    return found


def _moved(wanted: int, priority: int, queue: str) -> tuple[Adjustment, ...]:
    if wanted == priority:
        return ()
    return (
        Adjustment(
            "priority", wanted, priority, f"the routing keeps priorities of queue {queue!r} in a range"
        ),
    )


def _reply_to(value: Any) -> str | None:
    return None if value is None else check_name(value, "queue name (reply_to)")


def _encoder(
    enqueue: TaskEnqueueOptions, metadata: TaskMetadata, encoders: TaskPayloadEncoderRegistry
) -> str:
    chain = encoders.default_args
    if metadata.args_encoder is not None:
        chain = encoders.resolve(metadata.args_encoder)
    if enqueue.serializer is UNSET and enqueue.compression is UNSET:
        return chain
    return encoders.varied(
        chain,
        serializer=_id(enqueue.serializer, "serializer"),
        compression=_id(enqueue.compression, "compression"),
        bare=enqueue.compression is None,
    )


def _result_encoder(metadata: TaskMetadata, encoders: TaskPayloadEncoderRegistry) -> str | None:
    if metadata.result_encoder is None:
        return None
    chain = encoders.resolve(metadata.result_encoder)
    encoders.chain(chain)
    return chain


def _id(value: Any, option: str) -> str | None:
    if value is UNSET or value is None:
        return None
    if not isinstance(value, str) or not value:
        raise ConfigurationError(f"{option}={value!r} is not an encoder's id, such as 'cbor' or 'zstd'")
    return value


def limits_of(asked: Asked) -> Limits | None:
    """The shared limits of a publish, if it has any."""
    if asked.rate_limit is None and asked.group_rate_limit is None and asked.max_concurrency is None:
        return None
    options = asked.options
    return Limits(
        rate_limit=asked.rate_limit,
        group_rate_limit=asked.group_rate_limit,
        group_rate_key=options.group_rate_key,
        rate_limiter_failure_mode=options.rate_limiter_failure_mode,
        max_concurrency=asked.max_concurrency,
        concurrency_key=options.concurrency_key,
    )


def fields_of(asked: Asked, limits: Limits | None) -> dict[str, Any]:
    """The envelope's fields that every call of a plan shares, but those at their defaults."""
    found = {
        "name": asked.name,
        "queue": asked.queue,
        "encoder": asked.encoder,
        "not_before": asked.not_before,
        "expires": asked.expires if isinstance(asked.expires, datetime) else None,
        "priority": asked.priority,
        "max_retries": asked.max_retries,
        "retry_policy": asked.retry_policy,
        "soft_time_limit": asked.soft_time_limit,
        "time_limit": asked.time_limit,
        "visibility_timeout": asked.options.visibility_timeout,
        "acks_late": asked.options.acks_late,
        "result_encoder": asked.result_encoder,
        "result_ttl": asked.result_ttl,
        "ignore_result": asked.ignore_result,
        "shadow": asked.shadow,
        "route": asked.route,
        "limits": limits,
    }
    return {name: value for name, value in found.items() if name not in _ENVELOPE or value != _ENVELOPE[name]}


#: The defaults of the envelope's fields.
_ENVELOPE: Final[Mapping[str, Any]] = {
    each.name: {} if each.default is msgspec.NODEFAULT else each.default
    for each in msgspec.structs.fields(Envelope)
    if not each.required
}


_OPTIONS_KIND: Final = Kind((TaskOptions, NoneType), "a TaskOptions: write options=TaskOptions(...)")
_ENQUEUE_KIND: Final = Kind(
    (TaskEnqueueOptions,), "a TaskEnqueueOptions: write enqueue_options=TaskEnqueueOptions(...)"
)
