"""Every planted fault is caught by the law it breaks; the table says by which test and how fast."""

from __future__ import annotations

import pytest

from stem_core.contracts import LAWS
from tests.faults import delivery, leases, offers, payloads, publishing, results, starts, steps, stores
from tests.faults.harness import FAULTS, Fault, catch

MODULES = (publishing, leases, delivery, offers, results, steps, starts, stores, payloads)


@pytest.mark.parametrize("fault", FAULTS, ids=[f"law-{fault.law:02}-{fault.name}" for fault in FAULTS])
def test_the_fault_is_caught(fault: Fault, record_property) -> None:
    caught = catch(fault)
    assert caught is not None, (
        f"{fault.name} survives: law {fault.law} ({LAWS[fault.law]}) has no test that sees it"
    )
    record_property("fault", (fault.law, fault.name, caught.by, caught.seconds, caught.message))
