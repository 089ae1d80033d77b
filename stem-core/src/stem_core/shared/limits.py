"""Rate limits shared by all workers, on the backend's native limiter.

Keys: ``rate:task:<task name>`` for ``rate_limit``, ``rate:group:<value>`` for ``group_rate_limit``, where the
value is ``group_rate_key`` or the header the producer resolved into it, or its hash (see :mod:`~stem_core.shared.keys`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Final

import msgspec

from stem_core.envelope import Envelope, Limits
from stem_core.errors import StemError
from stem_core.options import parse_rate
from stem_core.ports.backend import Backend
from stem_core.shared.keys import key_part

__all__ = ["Permission", "RateLimits"]

_log = logging.getLogger("stem.limits")

#: Seconds to give a task back for when the limiter cannot be asked and the task says "closed".
CLOSED_DELAY: Final = 5.0


class Permission(msgspec.Struct, frozen=True):
    """Whether a task may run now; if not, the seconds to give its message back for."""

    granted: bool
    delay: float = 0.0


_GRANTED: Final = Permission(granted=True)


class RateLimits:
    """Asks for permits before a task runs."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def ask(self, envelope: Envelope) -> Permission:
        """Take one permit of each limit of this task; the first refusal decides.

        A limiter that cannot be asked lets the task run (``"open"``) or holds it (``"closed"``).
        """
        limits = envelope.limits
        if limits is None:
            return _GRANTED
        try:
            for key, rate in _wanted(envelope.name, limits):
                count, period = parse_rate(rate)
                answer = await self._backend.limit_take(key, 1, count / period, count)
                if not answer.granted:
                    return Permission(granted=False, delay=answer.retry_after)
        except StemError as error:
            if limits.rate_limiter_failure_mode == "closed":
                _log.warning("%s is held back: the limiter cannot be asked (%s)", envelope.name, error)
                return Permission(granted=False, delay=CLOSED_DELAY)
            _log.warning("%s runs unlimited: the limiter cannot be asked (%s)", envelope.name, error)
        return _GRANTED


def _wanted(name: str, limits: Limits) -> Iterator[tuple[str, str]]:
    # The wider limit last: a permit of it is not spent when the task's own refuses.
    if limits.rate_limit is not None:
        yield f"rate:task:{name}", limits.rate_limit
    if limits.group_rate_limit is not None:
        yield f"rate:group:{key_part(limits.group_rate_key or 'global')}", limits.group_rate_limit
