"""A Stem whose stores and worker go by a clock that the test moves."""

from __future__ import annotations

from typing import Any

from stem_core import Stem
from stem_core.clock import ManualClock
from stem_core.plugins import discover
from stem_core.ports.specs import AdapterOptions

CATALOGUE = discover()


def stem_on(clock: ManualClock, **arguments: Any) -> Stem:
    options = AdapterOptions(clock=clock)
    broker = CATALOGUE.broker("memory://").open("memory://", options)
    backend = CATALOGUE.backend("memory://").open("memory://", options)
    stem = Stem(broker, backend=backend, plugins=CATALOGUE, **arguments)
    stem.wiring.clock = clock
    return stem
