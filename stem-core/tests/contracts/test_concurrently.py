"""Rounds of several clients: together in each, and an error in one ends them all."""

from __future__ import annotations

import asyncio

import pytest

from stem_core.contracts.concurrently import in_rounds


class Client:
    """What it did, by round."""

    closed = 0

    async def close(self) -> None:
        Client.closed += 1


async def opened() -> Client:
    return Client()


@pytest.mark.parametrize("threads", [True, False])
def test_nobody_begins_a_round_before_everybody_is_there(threads: bool) -> None:
    begun: list[int] = []  # threads may append to it at once
    early: list[tuple[int, int]] = []

    async def work(_: Client, number: int) -> int:
        begun.append(number)
        await asyncio.sleep(0)
        if number and begun.count(number - 1) < 3:
            early.append((number, begun.count(number - 1)))
        return number

    rounds = in_rounds(opened, [work] * 3, 20, threads=threads, run=asyncio.run)
    assert rounds == [[number] * 3 for number in range(20)]
    assert not early


@pytest.mark.parametrize("threads", [True, False])
def test_an_error_is_told_and_keeps_nobody_waiting(threads: bool) -> None:
    async def good(_: Client, number: int) -> int:
        return number

    async def bad(_: Client, number: int) -> int:
        if number == 2:
            raise LookupError("the store said no")
        return number

    before = Client.closed
    with pytest.raises(LookupError, match="the store said no"):
        in_rounds(opened, [good, good, bad], 5, threads=threads, run=asyncio.run)
    assert Client.closed == before + 3
