"""The SQLite committer: the steps of a batch in one transaction (laws 30 to 32)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stem_core.builtin.sqlite import groups, queues, statuses
from stem_core.builtin.sqlite.session import Session
from stem_core.builtin.sqlite.statuses import Sheet
from stem_core.builtin.sqlite.unit import Unit
from stem_core.envelope import Action, Message
from stem_core.ports.backend import GroupOutcome
from stem_core.ports.committer import Step

__all__ = ["SqliteCommitter"]


class SqliteCommitter:
    """Decides every step first, on what was read at once, then writes what all of them do together.

    Nothing a step writes can fail by the rules once it is decided, so no savepoint is needed; a fault of the file
    rolls the whole batch back.
    """

    def __init__(self, session: Session, check: Callable[[Sequence[Message]], None]) -> None:
        self._session = session
        self._check = check

    async def commit(self, steps: Sequence[Step]) -> Sequence[bool]:
        self._check([message for step in steps for message in step.publishes])
        ns, once_ttl = self._session.ns, self._session.options.once_ttl
        return await self._session.write(lambda unit: _commit(unit, ns, steps, once_ttl))


def _commit(unit: Unit, ns: int, steps: Sequence[Step], once_ttl: float) -> list[bool]:
    good = queues.held(unit, ns, [step.settlement.receipt for step in steps if step.settlement is not None])
    sheet = Sheet(unit, ns, [update.id for step in steps for update in step.updates])
    actions: dict[int, Action] = {}
    publishes: list[Message] = []
    outcomes: list[GroupOutcome] = []
    done: list[bool] = []
    for step in steps:
        settlement = step.settlement
        seq = None if settlement is None else good.get(settlement.receipt)
        is_stale = settlement is not None and (seq is None or seq in actions)
        if is_stale or not sheet.take(step.updates):
            done.append(False)
            continue
        if settlement is not None and seq is not None:
            actions[seq] = settlement.action
        publishes += step.publishes
        outcomes += step.outcomes
        done.append(True)
    # Settlements of all steps before publishes of all: an id acked here is known to every publish after it either way.
    queues.settle(unit, ns, actions, once_ttl)
    sheet.write()
    completed = [
        each.group
        for each in outcomes
        if groups.add(unit, ns, each.group, each.member, each.outcome).complete
    ]
    callbacks = [callback for group in completed for callback in groups.callbacks(unit, ns, group)]
    publishes += [callback.message for callback in callbacks]
    if publishes:
        queues.publish(unit, ns, publishes)
    if callbacks:
        # Also on a repeat: whoever completed it before may have stopped short of publishing.
        statuses.record(unit, ns, [callback.queued for callback in callbacks])
    return done
