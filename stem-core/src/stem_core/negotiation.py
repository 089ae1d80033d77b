"""What adapters can do of what is asked, and what is done in place of the rest. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from stem_core.errors import UnsupportedCapability
from stem_core.options import Adjustment, TaskOptions
from stem_core.ports.capabilities import BackendCapabilities, BrokerCapabilities
from stem_core.publishing import level_of
from stem_core.resolving import Asked

__all__ = ["negotiate", "refuse"]

_LEVELS: Final = 10
_DEFAULT_TTL: Final = TaskOptions().result_ttl


def negotiate(
    asked: Asked,
    broker: BrokerCapabilities,
    backend: BackendCapabilities | None,
    *,
    now: datetime,
) -> tuple[Asked, tuple[Adjustment, ...]]:
    """``asked`` as far as these adapters can do it, and an adjustment for everything that is otherwise.

    :param now: the delay of an ``eta`` counts from it.
    """
    adjustments = [
        *_delay(asked, broker, now),
        *_priority(asked, broker),
        *_retry_delay(asked, broker),
    ]
    dropped: dict[str, Any] = {}
    if asked.route and not broker.routing:
        reason = "the broker has no routing; the queue alone decides"
        adjustments += [Adjustment(name, value, None, reason) for name, value in asked.route.items()]
        dropped["route"] = {}
    for name in ("rate_limit", "group_rate_limit", "max_concurrency"):
        missing = _limits_missing(name, backend)
        if getattr(asked, name) is not None and missing:
            adjustments.append(Adjustment(name, getattr(asked, name), None, f"the backend {missing}"))
            dropped[name] = None
    if asked.unique and (backend is None or not backend.state):
        missing = "there is no backend" if backend is None else "the backend has no shared state"
        adjustments.append(Adjustment("unique", True, False, missing))
        dropped["unique"] = False
    if asked.result_ttl != _DEFAULT_TTL and backend is not None and not backend.ttl:
        reason = "the backend keeps results for ever"
        adjustments.append(Adjustment("result_ttl", asked.result_ttl, None, reason))
    return (msgspec.structs.replace(asked, **dropped) if dropped else asked), tuple(adjustments)


def refuse(name: str, adjustments: tuple[Adjustment, ...]) -> None:
    """Raise what ``strict`` raises in place of adjusting.

    :raises UnsupportedCapability: there are adjustments.
    """
    if adjustments:
        words = "; ".join(f"{each.option}={each.requested!r}: {each.reason}" for each in adjustments)
        raise UnsupportedCapability(
            f"Task {name!r} asks for what the adapters cannot do: {words}. Drop it, use other adapters, or allow "
            "adjustments with strict=False."
        )


def _delay(asked: Asked, broker: BrokerCapabilities, now: datetime) -> list[Adjustment]:
    if asked.not_before is not None:
        requested: Any = asked.not_before
        delay = (asked.not_before - now) / timedelta(seconds=1)
    else:
        requested, delay = asked.countdown, asked.countdown
    if delay <= 0:
        return []
    if not broker.delay:
        reason = "the broker has no delay; workers hold the message until it is due"
        return [Adjustment(asked.delay_option, requested, "held by workers", reason)]
    if broker.max_delay is not None and delay > broker.max_delay:
        reason = f"the broker delays by at most {broker.max_delay:g} s; workers hold the message for the rest"
        return [Adjustment(asked.delay_option, requested, broker.max_delay, reason)]
    return []


def _priority(asked: Asked, broker: BrokerCapabilities) -> list[Adjustment]:
    levels = broker.priority_levels
    if not asked.priority or levels >= _LEVELS:
        return []
    level = level_of(asked.priority, levels)
    if levels == 1:
        reason = "the broker has no priorities"
    else:
        same = [str(each) for each in range(_LEVELS) if level_of(each, levels) == level]
        reason = f"the broker has {levels} levels; priorities {', '.join(same)} are one"
    return [Adjustment("priority", asked.priority, level, reason)]


def _retry_delay(asked: Asked, broker: BrokerCapabilities) -> list[Adjustment]:
    policy, longest = asked.retry_policy, broker.max_delay
    if policy is None or longest is None or not asked.max_retries:
        return []
    delay = policy.default_delay
    if policy.backoff:
        delay *= 2.0 ** min(asked.max_retries - 1, 64)
    if policy.backoff_max is not None:
        delay = min(delay, policy.backoff_max)
    if delay <= longest:
        return []
    reason = f"the broker delays a retry by at most {longest:g} s"
    return [Adjustment("retry_policy", delay, longest, reason)]


def _limits_missing(name: str, backend: BackendCapabilities | None) -> str | None:
    if backend is None:
        return "is missing, and limits are shared through it"
    if not backend.limiter:
        return "has no limiter"
    if name == "max_concurrency" and not backend.state:
        return "has no shared state to count in"
    return None
