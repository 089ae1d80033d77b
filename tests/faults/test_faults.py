"""Every planted fault is caught by the law it breaks; the table says by which test and how fast."""

from __future__ import annotations

import pytest

from stem_core.contracts import LAWS
from tests.faults import (
    dead,
    delays,
    delivery,
    leases,
    offers,
    payloads,
    publishing,
    races,
    shared,
    starts,
    statuses,
    steps,
    stores,
)
from tests.faults.harness import FAULTS, Fault, catch

MODULES = (
    publishing, leases, delays, delivery, dead, races, offers, statuses, shared, steps, starts, stores, payloads,
)  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=[f"law-{fault.law:02}-{fault.name}" for fault in FAULTS])
def test_the_fault_is_caught(fault: Fault, record_property) -> None:
    caught = catch(fault)
    assert caught is not None, (
        f"{fault.name} survives: law {fault.law} ({LAWS[fault.law]}) has no test that sees it"
    )
    record_property("fault", (fault.law, fault.name, caught.by, caught.seconds, caught.message))
