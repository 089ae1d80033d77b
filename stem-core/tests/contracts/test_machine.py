"""The state machine on an adapter that hypothesis cannot make repeat itself."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace

from stem_core.builtin.memory.broker import MemoryBroker
from stem_core.builtin.plugin import MEMORY_BROKER
from stem_core.contracts import BrokerContract
from stem_core.contracts.profile import PROFILES
from stem_core.envelope import Delivery
from stem_core.ports.specs import AdapterOptions


class PartialBatches(MemoryBroker):
    """As threads and servers do: now more, now fewer, whatever the seed."""

    async def receive(
        self, queues: Sequence[str], *, limit: int, lease: float, wait: float
    ) -> Sequence[Delivery]:
        return await super().receive(queues, limit=secrets.randbelow(limit) + 1, lease=lease, wait=wait)


def open_partial(url: str, options: AdapterOptions) -> PartialBatches:
    return PartialBatches(url, options, MEMORY_BROKER.capabilities)


class Partial(BrokerContract):
    """Its profile repeats beginnings of histories, as long runs do."""

    spec = replace(MEMORY_BROKER, open=open_partial)
    clock = True
    profile = replace(PROFILES["quick"], examples=200, steps=40)


def test_what_is_drawn_does_not_depend_on_the_adapter() -> None:
    Partial().test_agrees_with_the_model("memory://partial-batches")
