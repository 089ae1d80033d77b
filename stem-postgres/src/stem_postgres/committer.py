"""Broker and backend in one schema: a batch of steps in one statement where it can, else in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from stem_core.envelope import Release, Retry
from stem_core.ports.committer import Step
from stem_core.status import RANK_TERMINAL
from stem_postgres import messages
from stem_postgres import steps as flows
from stem_postgres.backend import PostgresBackend

if TYPE_CHECKING:  # the broker makes it
    from stem_postgres.broker import PostgresBroker

__all__ = ["PostgresCommitter"]

_SOON: Final = 2.0


class PostgresCommitter:
    """Implements ``stem_core.ports.committer.Committer``."""

    def __init__(self, broker: PostgresBroker, backend: PostgresBackend) -> None:
        self._broker = broker
        self._backend = backend

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
