"""Tests about durations, on machines that stall."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar, cast

from stem_core.contracts.driver import Driver
from stem_core.contracts.laws import LawBroken
from stem_core.contracts.pace import Pace

__all__ = ["punctual"]

TRIES = 6


class _Lab(Protocol):
    driver: Driver
    pace: Pace

    def renew(self) -> None: ...


P = ParamSpec("P")
Self = TypeVar("Self")
Lab = TypeVar("Lab", bound=_Lab)


def punctual(
    test: Callable[Concatenate[Self, Lab, P], None],
) -> Callable[Concatenate[Self, Lab, P], None]:
    """Run ``test`` again, elsewhere, when it failed after time had run ahead of its plan.

    Where real time must pass, a process that is stalled for a moment finds every lease ended. Such a
    finding says nothing of the adapter. One made on time counts at once, and so does the last.
    """

    def run(self: Self, lab: Lab, *args: P.args, **kwargs: P.kwargs) -> None:
        for left in reversed(range(TRIES)):
            try:
                return test(self, lab, *args, **kwargs)
            except LawBroken as error:
                late = lab.driver.late()
                if late <= lab.pace.lateness:
                    raise
                if not left:
                    error.add_note(
                        f"The test was {late:.2f} s behind its plan, {TRIES} times: this machine or the adapter is too "
                        f"slow for leases of {lab.pace.lease} s. Set a longer `lease` on the class."
                    )
                    raise
                lab.renew()
        return None

    functools.update_wrapper(run, test)  # pytest reads the parameters of what is wrapped
    return cast(Callable[Concatenate[Self, Lab, P], None], run)  # pytest calls it by keyword
