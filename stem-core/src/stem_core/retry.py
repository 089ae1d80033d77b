"""Whether a failed run is tried again, and after how long. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal

import msgspec

from stem_core.options import TaskRetryPolicy
from stem_core.scripts import importable

__all__ = ["Again", "Over", "RetryRequest", "backoff", "class_names", "decide", "matches"]

_NO_POLICY: Final = TaskRetryPolicy()


class RetryRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a handler asked for with ``raise ctx.retry(...)``; ``delay`` None leaves it to the policy."""

    delay: float | None = None
    policy: TaskRetryPolicy | None = None


class Again(msgspec.Struct, frozen=True):
    """Try again after ``delay`` seconds."""

    delay: float


class Over(msgspec.Struct, frozen=True):
    """Nothing more is tried: the policy refuses this error, or the retries are used up."""

    why: Literal["rejected", "max-retries-exhausted"]


def decide(
    error_names: Sequence[str],
    *,
    attempt: int,
    max_retries: int,
    policy: TaskRetryPolicy | None,
    request: RetryRequest | None,
    random: float,
) -> Again | Over:
    """What follows the failure of execution number ``attempt`` (from 0).

    :param error_names: the names of the raised exception's class and its bases, see :func:`class_names`.
    :param max_retries: the task's; a policy's own number beats it.
    :param request: what the handler asked for: it passes over ``auto_retry_for`` and shapes this one delay.
    :param random: from 0 to 1, the jitter.
    """
    chosen = policy or _NO_POLICY
    if request is None:
        if matches(error_names, chosen.dont_auto_retry_for):
            return Over("rejected")
        if chosen.auto_retry_for and not matches(error_names, chosen.auto_retry_for):
            return Over("rejected")
    elif request.policy is not None:
        chosen = request.policy
    limit = max_retries if chosen.max_retries is None else chosen.max_retries
    if attempt >= limit:
        return Over("max-retries-exhausted")
    if request is not None and request.delay is not None:
        return Again(request.delay)
    return Again(backoff(chosen, attempt, random))


def backoff(policy: TaskRetryPolicy, attempt: int, random: float) -> float:
    """Seconds before retry number ``attempt`` (from 0), as :class:`TaskRetryPolicy` describes."""
    delay = policy.default_delay
    if policy.backoff:
        # 2**64 seconds is longer than any queue lives, and still a float.
        delay *= 2.0 ** min(attempt, 64)
    if policy.backoff_max is not None:
        delay = min(delay, policy.backoff_max)
    return delay * (0.5 + random / 2) if policy.jitter else delay


def class_names(error: BaseException) -> tuple[str, ...]:
    """The dotted names of the error's class and its bases, most derived first."""
    return tuple(
        f"{importable(each.__module__)}.{each.__qualname__}"
        for each in type(error).__mro__
        if each is not object
    )


def matches(error_names: Iterable[str], wanted: Sequence[str]) -> bool:
    """Whether one of the names is wanted. Built-in exceptions may be named without ``builtins.``."""
    return bool(wanted) and any(
        name in wanted or name.removeprefix("builtins.") in wanted for name in error_names
    )
