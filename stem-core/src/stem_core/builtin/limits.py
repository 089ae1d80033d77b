"""The generic cell rate algorithm (GCRA, ITU-T I.371), as a function of one number kept for each key."""

from __future__ import annotations

from typing import Final

from stem_core.ports.backend import LimitAnswer

__all__ = ["check_limit", "take"]

#: Epoch seconds as a float are about this exact; a permit due now must not be late by less.
_ROUNDING: Final = 1e-6


def check_limit(permits: int, rate: float, burst: int) -> None:
    """Refuse what could never be granted.

    :raises ValueError: more permits than the bucket holds, none, or a rate of 0.
    """
    if not 0 < permits <= burst:
        raise ValueError(f"permits={permits} can never be granted by a bucket of burst={burst}")
    if rate <= 0:
        raise ValueError(f"rate={rate} must be more than 0 permits a second")


def take(
    arrival: float | None, permits: int, rate: float, burst: int, now: float
) -> tuple[LimitAnswer, float | None]:
    """The answer, and the key's next theoretical arrival time, None when it stays as it is.

    A permit moves that time on by ``1 / rate``; it is granted while the time stays within ``burst / rate`` of now.
    """
    next_arrival = max(now, arrival or now) + permits / rate
    early = next_arrival - burst / rate - now
    if early > _ROUNDING:
        return LimitAnswer(False, early), None
    return LimitAnswer(True), next_arrival
