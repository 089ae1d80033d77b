""":func:`run_inline`: an application's tasks run in the test's own loop, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self

from stem_core.builtin.memory.backend import MemoryBackend
from stem_core.builtin.memory.broker import MemoryBroker
from stem_core.builtin.plugin import MEMORY_BACKEND, MEMORY_BROKER
from stem_core.clock import ManualClock, SystemClock, instant, seconds
from stem_core.envelope import Delivery, Envelope, Message, Settlement
from stem_core.names import DEADLINE_TASK
from stem_core.ports.backend import Backend
from stem_core.ports.broker import QueueStats
from stem_core.ports.committer import Committer, Step
from stem_core.ports.specs import AdapterOptions
from stem_core.producer import Stem
from stem_core.worker import Worker
from stem_core.worker.payloads import decode_arguments

__all__ = ["Inline", "run_inline"]

#: What an instant may gain by becoming a datetime on its way: a message due at the very end is due.
_MICROSECOND: Final = 1e-6


class Inline:
    """A Stem whose tasks run here while this is entered. Made by :func:`run_inline`."""

    def __init__(self, stem: Stem, start: datetime | None, worker: Mapping[str, Any]) -> None:
        self.stem = stem
        #: The clock of broker, backend and worker. ``asyncio.sleep`` in a handler is real, and not on it.
        self.clock = ManualClock(SystemClock().time() if start is None else instant(start).timestamp())
        options = AdapterOptions(namespace=stem.namespace, clock=self.clock)
        capabilities = replace(MEMORY_BROKER.capabilities, transactional_publish=True)
        self._broker = EveryQueue("memory://", options, capabilities)
        self._backend = MemoryBackend("memory://", options, MEMORY_BACKEND.capabilities)
        self._worker_arguments = worker
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        wiring = replace(
            self.stem.wiring,
            broker=self._broker,
            backend=self._backend,
            clock=self.clock,
            make_broker=None,
            make_backend=None,
            outbox=None,
            make_outbox=None,
        )
        async with AsyncExitStack() as stack:
            stack.enter_context(self.stem.pointed_at(wiring))
            await self.stem.open()
            stack.push_async_callback(self.stem.close)
            worker = Worker(self.stem, clock=self.clock, **self._worker_arguments)
            await stack.enter_async_context(worker)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._broker.leave()  # else the worker would wait a quarter of a second for its last receive
        await self._stack.__aexit__(kind, error, trace)

    @property
    def now(self) -> datetime:
        """The virtual time."""
        return instant(self.clock.time())

    async def settle(self) -> None:
        """Wait until nothing is ready and nothing runs; what is scheduled stays where it is."""
        self._broker.settled.clear()
        while any(each.ready or each.leased for each in await self._counts()):
            await self._broker.settled.wait()
            self._broker.settled.clear()

    async def advance(self, duration: float | timedelta) -> None:
        """Let time pass: everything that becomes due meanwhile runs, at its time and in its order."""
        end = self.clock.time() + seconds(duration)
        await self.settle()
        while (due := self._broker.next_due()) is not None and due <= end + _MICROSECOND:
            self.clock.advance(max(0.0, due - self.clock.time()))
            await self.settle()
        self.clock.advance(max(0.0, end - self.clock.time()))
        await self.settle()

    async def run_all(self, *, jumps: int = 1000) -> None:
        """Let time pass until nothing is left to do, retries and delays included.

        The deadline of a graph that is over is nothing to do: results do not outlive it.

        :param jumps: how often to move on to what is due next, at most.
        :raises AssertionError: there is always something left: a task that schedules itself, perhaps.
        """
        await self.settle()
        for _ in range(jumps):
            due = await self._next_to_do()
            if due is None:
                return
            self.clock.advance(max(0.0, due - self.clock.time()))
            await self.settle()
        raise AssertionError(f"after {jumps} jumps through time something is still scheduled; use advance()")

    async def _next_to_do(self) -> float | None:
        for due, message in self._broker.scheduled():
            envelope = self.stem.wiring.unseal(message.sealed)
            if envelope.name != DEADLINE_TASK or not await self._is_over(envelope):
                return due
        return None

    async def _is_over(self, deadline: Envelope) -> bool:
        groups, _ = decode_arguments(self.stem.encoders, deadline, self.stem.namespace)
        records = [await self._backend.group_get(group, outcomes=False) for group in groups]
        return all(record is None or record.completed_by is not None for record in records)

    async def _counts(self) -> list[QueueStats]:
        return [await self._broker.stats(name) for name in self._broker.names]


def run_inline(stem: Stem, *, start: datetime | None = None, **worker: Any) -> Inline:
    """Run the tasks of ``stem`` in this loop, on a memory broker and a clock that only the test moves::

        async with run_inline(stem) as inline:
            handle = await remind.with_options(countdown=3600).enqueue("ops")
            await inline.advance(3600)
            assert await handle.result(timeout=5) == "reminded"

    :param start: the virtual time to begin with; now, unless given.
    :param worker: arguments of :class:`~stem_core.worker.Worker`; every queue is consumed in any case.
    """
    return Inline(stem, start, worker)


class EveryQueue(MemoryBroker):
    """A memory broker that hands out from every queue there is, whichever ones are asked for."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        #: Every queue that something was published to.
        self.names: set[str] = set()
        #: Set whenever messages were settled.
        self.settled = asyncio.Event()
        self._new = asyncio.Event()
        self._left = False

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[bool]:
        answer = await super().settle(settlements)
        self.settled.set()
        return answer

    async def publish(self, messages: Sequence[Message]) -> Sequence[bool]:
        new = {each.queue for each in messages} - self.names
        self.names |= new
        answer = await super().publish(messages)
        if new:
            self._new.set()
        return answer

    def leave(self) -> None:
        """Let no receive wait from here on."""
        self._left = True
        self._new.set()

    def join(self, backend: Backend) -> Committer | None:
        """None: a committer would publish past :meth:`publish`."""
        return None

    async def commit_on(self, conn: Any, steps: Sequence[Step]) -> Sequence[bool]:
        """Published at once: the caller's transaction is the caller's."""
        await self.publish([message for step in steps for message in step.publishes])
        return [True for _ in steps]

    async def receive(
        self, queues: Sequence[str], *, limit: int, lease: float, wait: float
    ) -> Sequence[Delivery]:
        names = sorted({*queues, *self.names})
        if self._left:
            await asyncio.sleep(0)  # whoever asks again and again has still to hear that he is to stop
            return await super().receive(names, limit=limit, lease=lease, wait=0.0)
        self._new.clear()
        receiving = asyncio.ensure_future(super().receive(names, limit=limit, lease=lease, wait=wait))
        another = asyncio.ensure_future(self._new.wait())
        try:
            await asyncio.wait((receiving, another), return_when=asyncio.FIRST_COMPLETED)
            # With a new queue there is something to ask for again; the worker does so at once.
            return receiving.result() if receiving.done() else ()
        finally:
            another.cancel()
            receiving.cancel()

    def scheduled(self) -> list[tuple[float, Message]]:
        """What is scheduled, and when it is due; the next first."""
        with self._store.lock:
            return self._store.queues.scheduled(sorted(self.names))

    def next_due(self) -> float | None:
        """When the next scheduled message is due; None when there is none."""
        with self._store.lock:
            return self._store.queues.next_event(sorted(self.names))
