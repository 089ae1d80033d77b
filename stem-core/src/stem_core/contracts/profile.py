"""How much the suite does: quick for every run, full for a night.

Chosen by the contract class (``profile = "full"``), else by ``STEM_CONTRACT_PROFILE``, else quick.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from hypothesis import HealthCheck, Phase, settings

__all__ = ["PROFILES", "PROFILE_ENV", "Profile", "choose"]

PROFILE_ENV: Final = "STEM_CONTRACT_PROFILE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Budgets. ``examples`` x ``steps`` drive the state machine where time is injected,
    ``real_examples`` x ``real_steps`` where it must pass.
    """

    name: str
    examples: int
    steps: int
    real_examples: int
    real_steps: int
    properties: int
    """Examples of each single property."""
    messages: int
    """Messages that eight consumers share."""
    races: int
    """Rounds of each pair of operations behind a barrier."""
    hunt: bool = False
    """Only find out whether there is a failure: the same examples each time, and no shrinking."""

    def machine(self, *, exact: bool) -> settings:
        """The settings of a state machine; ``exact`` where time is injected."""
        examples, steps = (self.examples, self.steps) if exact else (self.real_examples, self.real_steps)
        return settings(self._base(), max_examples=examples, stateful_step_count=steps)

    def property(self, most: int | None = None) -> settings:
        """The settings of a single property, of at most ``most`` examples."""
        return settings(self._base(), max_examples=min(self.properties, most or self.properties))

    def _base(self) -> settings:
        return _HUNT if self.hunt else _BASE


# A slow adapter is no finding; neither is a contract class that several test classes inherit from. One failure at
# a time: the second is often the first in other clothes, and shrinking it takes as long again.
_BASE: Final = settings(
    deadline=None,
    report_multiple_bugs=False,
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.filter_too_much,
        HealthCheck.function_scoped_fixture,
        HealthCheck.differing_executors,
    ],
)
_HUNT: Final = settings(
    _BASE,
    phases=(Phase.explicit, Phase.generate),
    derandomize=True,
    database=None,
    print_blob=False,
)

PROFILES: Final = {
    "quick": Profile(
        name="quick",
        examples=40,
        steps=30,
        real_examples=5,
        real_steps=20,
        properties=25,
        messages=5_000,
        races=20,
    ),
    "full": Profile(
        name="full",
        examples=2_000,
        steps=100,
        real_examples=200,
        real_steps=60,
        properties=1_000,
        messages=50_000,
        races=500,
    ),
}


def choose(name: str | Profile | None) -> Profile:
    """The profile given or called ``name``, else the environment's, else quick.

    :raises ValueError: there is none of that name.
    """
    if isinstance(name, Profile):
        return name
    wanted = name or os.environ.get(PROFILE_ENV) or "quick"
    if wanted not in PROFILES:
        raise ValueError(f"no contract profile {wanted!r}; there are {', '.join(PROFILES)}")
    return PROFILES[wanted]
