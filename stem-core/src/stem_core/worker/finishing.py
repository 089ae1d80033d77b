"""Storing the ends of runs, many at a time.

With a committer, a batch is one ``commit`` of steps. Without one it is the safe order: record, publish what is
derived, add the groups' outcomes, publish the callbacks of those that are complete, settle. A crash between two
of these leaves a message that is delivered again, finds its end recorded, and says the rest again.

After a False the recorded status decides (law 32): terminal in this generation, the delivery is finished by
what it says; anything else means that the lease was lost, and nothing more is done here.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence

from stem_core.envelope import Settlement
from stem_core.errors import DecodeError, PayloadTooLarge, StemError
from stem_core.ports.backend import Backend, GroupOutcome
from stem_core.ports.broker import Broker
from stem_core.ports.committer import Committer, Step
from stem_core.publishing import message_of, queued_of
from stem_core.sealing import parse, unpack
from stem_core.status import StatusUpdate, TaskState
from stem_core.worker import outcome
from stem_core.worker.outcome import Finish

__all__ = ["Finisher", "step_of"]

_log = logging.getLogger("stem.worker")
_SLOWEST = 2.0
#: Finishes worth a round trip of their own; fewer wait a moment for more.
_ENOUGH = 100


class Finisher:
    """Gathers finishes and stores them; one batch is on its way at a time."""

    def __init__(
        self,
        broker: Broker,
        backend: Backend | None,
        committer: Committer | None,
        *,
        still_wanted: Callable[[Finish], bool],
        on_stored: Callable[[Sequence[Finish]], None],
        on_dropped: Callable[[Finish], None],
        on_refused: Callable[[Finish, StemError], Finish],
        on_error: Callable[[], None],
        expects_more: Callable[[], bool],
        linger: float,
        batch: int,
    ) -> None:
        """:param still_wanted: whether the lease may still be ours; asked before each further try.
        :param on_refused: what becomes of a finish that can never be stored (a result too large).
        :param expects_more: whether lingering can make the batch larger.
        """
        self._broker = broker
        self._backend = backend
        self._committer = committer
        self._still_wanted = still_wanted
        self._on_stored = on_stored
        self._on_dropped = on_dropped
        self._on_refused = on_refused
        self._on_error = on_error
        self._expects_more = expects_more
        self._linger = linger
        self._batch = batch
        self._waiting: list[Finish] = []
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """Whether everything given is stored."""
        return self._idle.is_set()

    def add(self, finish: Finish) -> None:
        """Store it soon."""
        self._waiting.append(finish)
        if len(self._waiting) == 1:
            self._idle.clear()
            self._wake.set()

    async def drained(self) -> None:
        """Wait until everything given is stored or dropped."""
        await self._idle.wait()

    async def run(self) -> None:
        """Store until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._linger and len(self._waiting) < min(_ENOUGH, self._batch) and self._expects_more():
                await asyncio.sleep(self._linger)
            while self._waiting:
                batch, self._waiting = self._waiting[: self._batch], self._waiting[self._batch :]
                await self.store(batch)
            self._idle.set()

    async def store(self, batch: Sequence[Finish]) -> None:
        """Store ``batch`` now, however often that must be tried while the leases hold."""
        delay = 0.05
        while batch:
            try:
                batch = await self._store_once(batch)
                continue
            except PayloadTooLarge as error:
                if len(batch) > 1:
                    for each in batch:  # nothing was stored: find the one that is at fault
                        await self.store([each])
                    return
                if not _replaceable(batch[0]):
                    self._give_up(batch[0])
                    return
                refused = self._on_refused(batch[0], error)
                batch = [refused if batch[0].settlement is not None else outcome.acked(refused)]
                continue
            except (StemError, OSError, TimeoutError) as error:
                problem = error
            except Exception:  # noqa: BLE001 - an adapter's bug with one of them must not stop the others
                if len(batch) > 1:
                    for each in batch:
                        await self.store([each])
                    return
                self._give_up(batch[0])
                return
            self._on_error()
            _log.warning(
                "Storing %d finished tasks failed; trying again (%s: %s)",
                len(batch),
                type(problem).__name__,
                problem,
            )
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))
            delay = min(delay * 2, _SLOWEST)
            wanted = []
            for each in batch:
                if self._still_wanted(each):
                    wanted.append(each)
                else:
                    self._on_dropped(each)
            batch = wanted

    def _give_up(self, finish: Finish) -> None:
        _log.exception("Task %s cannot be finished; its lease is let go", _id_of(finish))
        self._on_error()
        self._on_dropped(finish)

    async def _store_once(self, batch: Sequence[Finish]) -> Sequence[Finish]:
        """One try. Answers the finishes that replace those that were answered False."""
        if self._committer is not None:
            answers = await self._committer.commit([step_of(each, self._broker) for each in batch])
        else:
            answers = await self._in_safe_order(batch)
        if all(answers) and len(answers) == len(batch):
            self._on_stored(batch)
            return ()
        pairs = list(zip(batch, answers, strict=True))
        self._on_stored([finish for finish, done in pairs if done])
        return await self._by_what_is_recorded([finish for finish, done in pairs if not done])

    async def _by_what_is_recorded(self, refused: Sequence[Finish]) -> Sequence[Finish]:
        again: list[Finish] = []
        asked: list[Finish] = []
        for each in refused:
            if each.update is None or self._backend is None:
                self._on_dropped(each)
            else:
                asked.append(each)
        if not asked or self._backend is None:
            return ()
        statuses = await self._backend.fetch([each.update.id for each in asked if each.update is not None])
        for finish, status in zip(asked, statuses, strict=True):
            known = status is not None and status.terminal and status.generation >= finish.delivery.generation
            if finish.envelope is None or status is None or not known:
                self._on_dropped(finish)
                continue
            known_end = outcome.recorded(finish.envelope, finish.delivery, status)
            again.append(known_end if finish.settlement is not None else outcome.acked(known_end))
        return again

    async def _in_safe_order(self, batch: Sequence[Finish]) -> Sequence[bool]:
        answers = [True] * len(batch)
        if self._backend is not None:
            await self._record(batch, answers, self._backend)
        steps = [
            step_of(each, self._broker) if ok else Step() for each, ok in zip(batch, answers, strict=True)
        ]
        queued = [
            row
            for step, each in zip(steps, batch, strict=True)
            for row in step.updates
            if row is not each.update
        ]
        if queued and self._backend is not None:
            await self._backend.record(queued)
        publishes = [message for step in steps for message in step.publishes]
        if publishes:
            await self._broker.publish(publishes)
        if self._backend is not None:
            for step in steps:
                for each_outcome in step.outcomes:
                    await add_outcome(each_outcome, self._broker, self._backend)
        settlements: list[Settlement] = [s.settlement for s in steps if s.settlement is not None]
        if settlements:  # one that is stale by now is recorded all the same, and will be found so
            await self._broker.settle(settlements)
        return answers

    @staticmethod
    async def _record(batch: Sequence[Finish], answers: list[bool], backend: Backend) -> None:
        updates: list[StatusUpdate] = []
        places: list[int] = []
        for index, finish in enumerate(batch):
            if finish.update is not None:
                updates.append(finish.update)
                places.append(index)
        if not updates:
            return
        for index, update, done in zip(places, updates, await backend.record(updates), strict=True):
            if not done and update.state.terminal:
                answers[index] = False


async def add_outcome(member: GroupOutcome, broker: Broker, backend: Backend) -> None:
    """Count one outcome without a committer; the member that completes its group publishes its callback."""
    answer = await backend.group_add(member.group, member.member, member.outcome)
    if answer.complete:
        await publish_callback(member.group, broker, backend)


async def publish_callback(group: str, broker: Broker, backend: Backend) -> None:
    """Publish what a complete group calls, with its ``queued`` rows; again adds nothing."""
    record = await backend.group_get(group, outcomes=False)
    if record is not None and record.callback:
        await backend.record([each.queued for each in record.callback])
        await broker.publish([each.message for each in record.callback])


def step_of(finish: Finish, broker: Broker) -> Step:
    """A finish as one step, its derived messages opened and made messages with their ``queued`` rows."""
    updates = () if finish.update is None else (finish.update,)
    outcomes = () if finish.outcome is None else (finish.outcome,)
    if not finish.derived:
        return Step(settlement=finish.settlement, updates=updates, outcomes=outcomes)
    messages = []
    for sealed in finish.derived:
        try:  # they are inside a verified envelope, and verified again when they are received
            envelope = parse(unpack(sealed).inner)
        except DecodeError as error:
            _log.error(
                "A derived message of task %s cannot be read and is left out: %s", _id_of(finish), error
            )
            continue
        messages.append(message_of(envelope, sealed, broker.capabilities, once=True))
        updates = (*updates, queued_of(envelope))
    return Step(settlement=finish.settlement, updates=updates, publishes=tuple(messages), outcomes=outcomes)


def _replaceable(finish: Finish) -> bool:
    return finish.update is not None and finish.update.state is TaskState.SUCCEEDED


def _id_of(finish: Finish) -> str:
    return finish.delivery.message.id
