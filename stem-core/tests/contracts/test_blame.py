"""What a failed test of a model says, and of which law."""

from __future__ import annotations

import asyncio

import pytest

from stem_core.builtin.memory.broker import MemoryBroker
from stem_core.builtin.plugin import MEMORY_BROKER
from stem_core.contracts.blame import law_of, leaves, told
from stem_core.contracts.broker.lab import BrokerLab
from stem_core.contracts.driver import Driver
from stem_core.contracts.laws import LawBroken
from stem_core.contracts.pace import Pace
from stem_core.contracts.time import ManualTime


def test_each_of_a_group_is_told_under_its_own_law() -> None:
    nested = ExceptionGroup("two", [LawBroken(5, "five"), LawBroken(11, "eleven")])
    group = ExceptionGroup("Hypothesis found 3 distinct failures", [nested, KeyError("x")])
    group.add_note("the example")
    found = leaves(group)
    assert [law_of(each) for each in found] == [5, 11, 0]
    assert [told(each) for each in found] == [
        "law 5: five\nthe example",
        "law 11: eleven\nthe example",
        "KeyError: 'x'\nthe example",
    ]


def test_what_an_adapter_raises_counts_against_the_law_of_the_method() -> None:
    class Raising(MemoryBroker):
        async def settle(self, settlements):  # type: ignore[no-untyped-def]
            await asyncio.sleep(0)
            raise KeyError("lost")

    lab = BrokerLab(
        Driver(ManualTime()),
        MEMORY_BROKER,
        "memory://blame",
        Pace(exact=True, resolution=0.0, lease=None, settle=None, skew=0.0, prompt=1.0),
    )
    with lab.driver:
        client = lab.client()
        client.broker = Raising("memory://blame", lab.driver.options(), MEMORY_BROKER.capabilities)
        lab.driver.run(client.broker.open())
        client.publish(lab.message())
        with pytest.raises(KeyError) as caught:
            client.end(client.one(lab.queue))
    (error,) = leaves(caught.value)
    assert law_of(error) == 5
    assert told(error) == "no law: the adapter raised KeyError in settle: 'lost'"


def test_the_suites_own_mistakes_count_against_no_adapter() -> None:
    with pytest.raises(AttributeError) as caught:
        BrokerLab.message(None)  # type: ignore[arg-type]
    assert law_of(caught.value) == 0
