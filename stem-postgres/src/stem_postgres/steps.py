"""Steps as flows: what a commit says to the database, whoever holds the connection.

:func:`simple` does a batch in one statement: steps that share no key with another, with at most one terminal
update, in no group. :func:`careful` does any batch: it locks what the steps touch (messages, then statuses, then
groups, each in key order), decides here, by the same pure functions that specify the laws, and writes.
"""

# ruff: noqa: S608 - statements are put together from constants of ours; values travel as parameters

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from stem_core.envelope import Message, Settlement
from stem_core.ports.committer import Step
from stem_core.status import RANK_TERMINAL, StatusUpdate, TaskStatus, merge
from stem_postgres import enqueues, groups, messages, statuses
from stem_postgres.arrays import Plain, Texts
from stem_postgres.connection import Again, Flow, Query
from stem_postgres.messages import parse_receipt

__all__ = ["Commits", "Done", "Scope", "careful", "divide", "simple"]


@dataclass(frozen=True, slots=True)
class Scope:
    """What every statement of a store needs to know."""

    namespace: str
    once_ttl: float


@dataclass(slots=True)
class Done:
    """What a batch came to: an answer per step, and the messages that completed groups published."""

    answers: list[bool]
    callbacks: list[Message] = field(default_factory=list)


#: What :func:`simple` and :func:`careful` are.
Commits = Callable[[Sequence[Step], Scope], Flow[Done]]


def divide(steps: Sequence[Step]) -> tuple[list[int], list[int]]:
    """Positions of the steps that :func:`simple` can do, and of the others."""
    simple_ones: list[int] = []
    others: list[int] = []
    seen: set[object] = set()
    for position, step in enumerate(steps):
        keys: list[object] = [update.id for update in step.updates]
        keys += [(message.queue, message.id) for message in step.publishes]
        if step.settlement is not None:
            keys.append(parse_receipt(step.settlement.receipt)[0])
        before = len(seen)
        seen.update(keys)
        alone = len(seen) - before == len(keys)
        (simple_ones if alone and not step.outcomes and _one_gate(step.updates) else others).append(position)
    return simple_ones, others


def _one_gate(updates: Sequence[StatusUpdate]) -> bool:
    return len(updates) < 2 or sum(update.rank == RANK_TERMINAL for update in updates) < 2


def simple(steps: Sequence[Step], scope: Scope) -> Flow[Done]:
    """One statement for all; the receipts that hold and the terminal updates that are accepted decide it."""
    if enqueues.is_lone(steps):
        stored = yield enqueues.query(steps[0], scope.namespace)
        if stored:
            return Done([True])
    settlements: list[Settlement] = []
    settling: list[int] = []
    gates: list[StatusUpdate] = []
    gating: list[int] = []
    others: list[StatusUpdate] = []
    other_steps: list[int] = []
    published: list[Message] = []
    publishing: list[int] = []
    for number, step in enumerate(steps):
        if step.settlement is not None:
            settlements.append(step.settlement)
            settling.append(number)
        for update in step.updates:
            terminal = update.rank == RANK_TERMINAL
            (gates if terminal else others).append(update)
            (gating if terminal else other_steps).append(number)
        published += step.publishes
        publishing += [number] * len(step.publishes)
    parts = (
        messages.settle_columns(settlements, scope.once_ttl, settling) if settlements else None,
        statuses.status_columns("g_", gates, gating) if gates else None,
        statuses.status_columns("u_", others, other_steps) if others else None,
        messages.publish_columns(published, publishing) if published else None,
    )
    parameters: dict[str, Any] = {"namespace": scope.namespace}
    for part in parts:
        if part is not None:
            parameters |= part.parameters
    shape = [None if part is None else part.plain for part in parts]
    rows = (yield Query(_statement(*shape), parameters)) if len(parameters) > 1 else ()
    failed = {row[0] for row in rows}
    return Done([number not in failed for number in range(len(steps))])


@cache
def _statement(
    settles: Plain | None, gated: Plain | None, records: Plain | None, publishes: Plain | None
) -> str:
    """Answers the numbers of the steps that are not done. None where a batch has nothing of that."""
    # ``not in (select ...)`` on purpose: PostgreSQL hashes it once instead of considering a join of two batches row
    # by row.
    parts, fails = [], []
    held = passed = ""
    if settles is not None:
        parts += [
            messages.held(settles),
            "lost as materialized (select step from given where step not in (select step from held))",
        ]
        fails.append("select step from lost")
        held = "where u.step not in (select step from lost)"
    if gated is not None:
        given = statuses.updates_of("g_", gated)
        parts += [
            f"gate as ({statuses.upsert('g_', gated, held)})",
            f"refused as materialized (select u.step from {given} where u.id not in (select id from gate))",
        ]
        fails.append("select step from refused")
        passed = "h.step not in (select step from refused)"
    if settles is not None:
        parts.append(messages.settled(passed))
    if fails:
        parts.append(f"failed as materialized ({' union all '.join(fails)})")
    if records is not None:
        done = "where u.step not in (select step from failed)" if fails else ""
        parts.append(f"noted as ({statuses.upsert('u_', records, done)})")
    if publishes is not None:
        conditions = ["p.step not in (select step from failed)"] if fails else []
        if (
            records is not None
        ):  # statuses are locked before messages everywhere; this makes the one wait for the other
            conditions.append("(select count(*) from noted) >= 0")
        where = f"where {' and '.join(conditions)}" if conditions else ""
        parts.append(f"published as ({messages.insert_messages(publishes, where)})")
    return f"with {', '.join(parts)} {'select step from failed' if fails else 'select where false'}"


def careful(steps: Sequence[Step], scope: Scope) -> Flow[Done]:
    """Lock, decide, write. Raises Again when a status appeared between the lock and the write."""
    held = yield from _lock_receipts(steps, scope)
    current = yield from _lock_statuses(steps, scope)
    ledger = yield from groups.lock([each for step in steps for each in step.outcomes], scope.namespace)
    done = Done([])
    settlements: list[Settlement] = []
    updates: list[StatusUpdate] = []
    gates: list[bool] = []
    published: dict[tuple[str, str], Message] = {}
    for step in steps:
        after = _decided(step, held, current)
        if after is None:
            done.answers.append(False)
            continue
        done.answers.append(True)
        current.update(after)
        if step.settlement is not None:
            held.discard(step.settlement.receipt)
            settlements.append(step.settlement)
        updates += step.updates
        gates += [each.rank == RANK_TERMINAL for each in step.updates]
        for message in step.publishes:
            published.setdefault((message.queue, message.id), message)
        for outcome in step.outcomes:
            if ledger.add(outcome):
                for callback in ledger.callback(outcome.group):
                    published.setdefault((callback.message.queue, callback.message.id), callback.message)
                    updates.append(callback.queued)
                    gates.append(False)
                    done.callbacks.append(callback.message)
    if settlements:
        plain, parameters = messages.settle_columns(settlements, scope.once_ttl)
        yield Query(messages.settle(plain), parameters)
    for wave in statuses.waves(updates):
        plain, parameters = statuses.status_columns("u_", [updates[each] for each in wave])
        rows = yield Query(statuses.record(plain), {"namespace": scope.namespace} | parameters)
        accepted = {row[0] for row in rows}
        if any(gates[each] and updates[each].id not in accepted for each in wave):
            raise Again
    if published:
        plain, parameters = messages.publish_columns(list(published.values()))
        yield Query(messages.publish(plain), {"namespace": scope.namespace} | parameters)
    yield from ledger.write()
    return done


def _decided(
    step: Step, held: set[str], current: Mapping[str, TaskStatus | None]
) -> dict[str, TaskStatus | None] | None:
    """The statuses after a step, or None when its receipt or a terminal update of it is refused."""
    if step.settlement is not None and step.settlement.receipt not in held:
        return None
    after: dict[str, TaskStatus | None] = {}
    for update in step.updates:
        before = after.get(update.id) or current.get(update.id)
        merged = merge(before, update)
        if merged is not None:
            after[update.id] = merged
        elif update.rank == RANK_TERMINAL:
            return None
    return after


def _lock_receipts(steps: Sequence[Step], scope: Scope) -> Flow[set[str]]:
    settlements = {step.settlement.receipt: step.settlement for step in steps if step.settlement is not None}
    if not settlements:
        return set()
    plain, parameters = messages.settle_columns(list(settlements.values()), scope.once_ttl)
    rows = yield Query(messages.lock(plain), parameters)
    return {f"{seq}.{token}" for seq, token in rows}


def _lock_statuses(steps: Sequence[Step], scope: Scope) -> Flow[dict[str, TaskStatus | None]]:
    ids = sorted({update.id for step in steps for update in step.updates})
    if not ids:
        return {}
    rows = yield Query(statuses.LOCK, {"namespace": scope.namespace, "ids": Texts(ids)})
    return {status.id: status for status in map(statuses.status_of, rows)}
