"""Broker and backend in one schema: a batch of steps in one statement where it can, else in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

import psycopg

from stem_core.envelope import Release, Retry
from stem_core.errors import PayloadTooLarge, UnsupportedCapability
from stem_core.ports.committer import Ended, Step
from stem_core.status import RANK_TERMINAL
from stem_postgres import enqueues, messages
from stem_postgres import steps as flows
from stem_postgres.backend import PostgresBackend
from stem_postgres.connection import is_lost

if TYPE_CHECKING:  # the broker makes it
    from stem_postgres.broker import PostgresBroker

__all__ = ["PostgresCommitter"]

_SOON: Final = 2.0


class PostgresCommitter:
    """Implements ``stem_core.ports.committer.Starter``."""

    #: A statement of many waits for the disk once, like a statement of few.
    enough = 200

    def __init__(self, broker: PostgresBroker, backend: PostgresBackend) -> None:
        self._broker = broker
        self._backend = backend
        self._mending: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()

    def start(self, steps: Sequence[Step], timeout: float, ended: Ended) -> bool:
        """Begin to store new work, in one statement behind what was started before."""
        database, link = self._broker.database, self._broker.database.link
        if link is None or self._mending or database.closed or not link.ready():
            return False
        if not all(map(Step.is_new_work, steps)) or flows.divide(steps)[1]:
            return False
        try:
            messages.check((each.publishes[0] for each in steps), self._broker.capabilities)
        except (PayloadTooLarge, UnsupportedCapability):
            return False  # commit says which
        query = next(flows.simple(steps, self._broker.scope))
        return database.begin(query, timeout, partial(self._answered, steps, ended))

    def _answered(self, steps: Sequence[Step], ended: Ended, outcome: int | psycopg.Error) -> None:
        if isinstance(outcome, psycopg.Error) and is_lost(outcome):
            ended(self._broker.database.failure(outcome))
        elif isinstance(outcome, psycopg.Error) or (outcome == 0 and enqueues.is_lone(steps)):
            # It was rolled back, or the one id is known after all: another statement can do more.
            task = asyncio.get_running_loop().create_task(self._mend(steps, ended))
            self._mending.add(task)
            task.add_done_callback(self._mending.discard)
        else:
            self._announce(steps, flows.Done([]))
            ended([True] * len(steps))

    async def _mend(self, steps: Sequence[Step], ended: Ended) -> None:
        try:
            async with self._turn:
                answers = await self.commit(steps)
        except Exception as error:  # noqa: BLE001 - whoever started it is told
            ended(error)
        else:
            ended(answers)

    async def commit(self, steps: Sequence[Step]) -> list[bool]:
        """Each step whole or not at all; one statement for those that stand alone, one transaction for the rest."""
        messages.check((each for step in steps for each in step.publishes), self._broker.capabilities)
        answers = [False] * len(steps)
        for positions, flow in zip(flows.divide(steps), (flows.simple, flows.careful), strict=True):
            if positions:
                chosen = [steps[position] for position in positions]
                done = await self._do(chosen, flow)
                for position, answer in zip(positions, done.answers, strict=True):
                    answers[position] = answer
                self._announce(
                    [step for step, answer in zip(chosen, done.answers, strict=True) if answer], done
                )
        return answers

    async def _do(self, steps: Sequence[Step], flow: flows.Commits) -> flows.Done:
        database, scope = self._broker.database, self._broker.scope
        if flow is flows.simple:  # one statement is a transaction
            return await database.alone(lambda: flow(steps, scope))
        return await database.transact(lambda: flow(steps, scope))

    def _announce(self, steps: Sequence[Step], done: flows.Done) -> None:
        queues = {message.queue for step in steps for message in step.publishes}
        queues.update(message.queue for message in done.callbacks)
        for step in steps:
            action = step.settlement and step.settlement.action
            if isinstance(action, Retry | Release) and action.delay < _SOON:
                self._broker.announce_all()
                break
        self._broker.announce(queues)
        self._backend.waiters.announce(
            update.id for step in steps for update in step.updates if update.rank == RANK_TERMINAL
        )
