"""The durations of one test class."""

from __future__ import annotations

from typing import Final

__all__ = ["LONG", "Pace"]

#: A lease that no test outlives, in seconds.
LONG: Final = 600.0


class Pace:
    """The durations of one test class, in seconds; see ``BrokerContract`` for what they mean."""

    def __init__(
        self,
        *,
        exact: bool,
        resolution: float,
        lease: float | None,
        settle: float | None,
        skew: float,
        prompt: float,
    ) -> None:
        self.exact = exact
        self.resolution = resolution
        self.lease = lease or (max(10.3, 8 * resolution) if exact else max(0.3, 8 * resolution))
        self.settle = (0.0 if exact else 0.05) if settle is None else settle
        self.prompt = prompt
        #: How late a due message may be.
        self.slack = resolution + self.settle
        #: How early it may look, for clocks that count in milliseconds or run apart.
        self.early = skew + (0.0001 if exact else 0.002)
        #: How far a test may fall behind its plan before a finding of it counts for nothing.
        self.lateness = 0.25 * self.lease
