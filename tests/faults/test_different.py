"""What is correct but different passes: no false alarm, over and over."""

from __future__ import annotations

import pytest

from stem_core.contracts.profile import Profile
from tests.faults.different import DIFFERENT
from tests.faults.harness import Contract, cases, history, raised

#: As the real profiles, but for the numbers.
SMALL = Profile(
    name="small", examples=12, steps=25, real_examples=1, real_steps=10, properties=8, messages=300, races=3
)
NAMES = [name for name, _ in DIFFERENT]


def keeps_every_law(contract: type[Contract]) -> None:
    made = type(contract.__name__, (contract,), {"profile": SMALL})
    for name, run in cases(made):
        error = raised(run)
        assert error is None, f"false alarm: {name}: {error}"
    machine = history(made, SMALL)
    error = machine and raised(machine)
    assert error is None, f"false alarm: {error}"


@pytest.mark.parametrize(("name", "contract"), DIFFERENT, ids=NAMES)
def test_it_passes(name: str, contract: type[Contract]) -> None:
    keeps_every_law(contract)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("name", "contract"), DIFFERENT, ids=NAMES)
def test_it_passes_fifty_times(name: str, contract: type[Contract]) -> None:
    for _ in range(50):
        keeps_every_law(contract)


def test_there_are_at_least_ten() -> None:
    assert len(set(NAMES)) >= 10
