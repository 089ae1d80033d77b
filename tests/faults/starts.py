"""Faults of what a committer starts without waiting (:class:`stem_core.ports.Starter`)."""

from __future__ import annotations

import asyncio
from typing import Any

from stem_core.builtin.memory.committer import MemoryCommitter
from stem_core.contracts import CommitterContract
from stem_core.errors import AdapterError
from tests.faults.harness import broken
from tests.faults.memory import committer
from tests.faults.publishing import changed

__all__ = ["Starting"]


class Starting(MemoryCommitter):
    """A memory committer that does what is started a little later, as a server would."""

    enough = 10

    def start(self, steps, timeout, ended):
        asyncio.get_running_loop().call_later(0.001, self._see_to, steps, ended)
        return True

    def _see_to(self, steps, ended):
        task = asyncio.ensure_future(self._do(steps))
        task.add_done_callback(lambda done: ended(done.exception() or done.result()))

    async def _do(self, steps):
        return await self.commit(steps)


def starting(law: int, name: str, **methods: Any) -> None:
    def make() -> Any:
        return committer(type("C", (Starting,), methods), max_size=4096)

    make.__name__ = name
    broken(law, CommitterContract)(make)


async def _nothing(self, steps):
    """Sent is done."""
    return [True] * len(steps)


async def _twice(self, steps):
    """It is sent again on another connection, to be sure."""
    await self.commit(steps)
    return await self.commit(steps)


async def _always_true(self, steps):
    await self.commit(steps)
    return [True] * len(steps)


async def _no_rows(self, steps):
    return await self.commit([changed(step, updates=()) if step.publishes else step for step in steps])


async def _only_the_first(self, steps):
    return await self.commit(steps[:1])


async def _cut_to_size(self, steps):
    """What is too large is left out, and the rest is stored."""
    try:
        return await self.commit(steps)
    except Exception as error:
        await self.commit(steps[:1])
        raise error from None


def _at_once(self, steps, timeout, ended):
    """Answers before its caller knows that it was started."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(self.commit(steps))
    ended([True] * len(steps))
    return not task.done()


def _tells_twice(self, steps, ended):
    Starting._see_to(self, steps, lambda answers: (ended(answers), ended(answers)))


def _never_tells(self, steps, ended):
    Starting._see_to(self, steps, lambda answers: None)


def _declines_and_does(self, steps, timeout, ended):
    """False, and it is on its way."""
    asyncio.get_running_loop().call_soon(self._see_to, steps, lambda answers: None)
    return False


def _the_small_ones_first(self, steps, timeout, ended):
    asyncio.get_running_loop().call_later(0.001 * len(steps), self._see_to, steps, ended)
    return True


def _raises_the_drivers_error(self, steps, ended):
    async def work():
        try:
            return await self.commit(steps)
        except AdapterError as error:
            raise ConnectionError(str(error)) from None

    task = asyncio.ensure_future(work())
    task.add_done_callback(lambda done: ended(done.exception() or done.result()))


async def _also_when_closed(self, steps):
    with self._store.lock:
        return [self._commit(step, self._store.clock.time(), set()) for step in steps]


starting(32, "what_is_started_is_forgotten", _do=_nothing)
starting(32, "what_is_started_is_done_twice", _do=_twice)
starting(32, "a_start_is_never_refused", _do=_always_true)
starting(32, "a_start_leaves_out_the_rows", _do=_no_rows)
starting(32, "a_start_does_its_first_step", _do=_only_the_first)
starting(32, "a_start_answers_before_it_returns", start=_at_once)
starting(32, "a_start_tells_twice", _see_to=_tells_twice)
starting(32, "a_start_never_tells", _see_to=_never_tells)
starting(32, "what_is_declined_is_done", start=_declines_and_does)
starting(9, "what_is_started_overtakes", start=_the_small_ones_first)
starting(3, "a_start_stores_what_fits", _do=_cut_to_size)
starting(16, "a_closed_store_starts_more", _do=_also_when_closed)
starting(16, "a_start_raises_the_drivers_error", _see_to=_raises_the_drivers_error)
