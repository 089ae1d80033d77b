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
from stem_postgres import groups, messages, statuses
from stem_postgres.arrays import Bigints, Bools, Texts
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
    settles, gated = set(settling), set(gating)
    parameters: dict[str, Any] = {
        "namespace": scope.namespace,
        "s_step": Bigints(range(len(steps))),
        "s_settles": Bools([number in settles for number in range(len(steps))]),
        "s_gated": Bools([number in gated for number in range(len(steps))]),
    }
    if settlements:
        parameters |= messages.settle_columns(settlements, settling, scope.once_ttl)
    if gates:
        parameters |= statuses.status_columns("g_", gates, gating)
        parameters["g_settles"] = Bools([number in settles for number in gating])
        parameters["gate_id"] = Texts([each.id for each in gates])
        parameters["gate_step"] = Bigints(gating)
    if others:
        parameters |= statuses.status_columns("u_", others, other_steps)
    if published:
        parameters |= messages.publish_columns(published, publishing)
    shape = bool(settlements), bool(gates), bool(others), bool(published)
    rows = yield Query(_statement(*shape), parameters)
    done = {row[0] for row in rows}
    return Done([number in done for number in range(len(steps))])


@cache
def _statement(settles: bool, gated: bool, records: bool, publishes: bool) -> str:
    # ``in (select ...)`` stands beside an ``or`` on purpose: PostgreSQL then hashes it once instead of
    # considering a join of two batches row by row.
    parts = []
    done = "true"
    if settles:
        parts.append(messages.HELD)
        done += " and (not s.settles or s.step in (select step from held))"
    if gated:
        held = "not u.settles or u.step in (select step from held)" if settles else ""
        parts.append(f"gate as ({_gate_upsert(held)})")
        parts.append(
            "passed as materialized (select g.step from unnest(%(gate_id)s, %(gate_step)s) as g (id, step)"
            " where g.id is null or g.id in (select id from gate))"
        )
        done += " and (not s.gated or s.step in (select step from passed))"
    parts.append(
        "done as materialized (select s.step from unnest(%(s_step)s, %(s_settles)s, %(s_gated)s)"
        f" as s (step, settles, gated) where {done})"
    )
    if settles:
        narrowed = "(h.step is null or h.step in (select step from done))" if gated else ""
        parts.append(messages.settled(narrowed))
    if records:
        parts.append(
            f"noted as ({statuses.upsert('u_', 'where u.step is null or u.step in (select step from done)')})"
        )
    if publishes:
        chosen = "(p.step is null or p.step in (select step from done))"
        if records:  # statuses are locked before messages everywhere; this makes the one wait for the other
            chosen += " and (select count(*) from noted) >= 0"
        inserted = messages.insert_messages(f"where {chosen}")
        parts.append(f"published as ({inserted})")
    return f"with {', '.join(parts)} select step from done"


def _gate_upsert(held: str) -> str:
    text = statuses.upsert("g_", f"where {held}" if held else "")
    # The same rows with one column more: whether the step they belong to settles something.
    return text.replace("%(g_step)s)", "%(g_step)s, %(g_settles)s)").replace(
        ", ttl, step)", ", ttl, step, settles)"
    )


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
        yield Query(messages.SETTLE, messages.settle_columns(settlements, None, scope.once_ttl))
    for wave in statuses.waves(updates):
        columns = statuses.status_columns("u_", [updates[each] for each in wave])
        rows = yield Query(statuses.RECORD, {"namespace": scope.namespace} | columns)
        accepted = {row[0] for row in rows}
        if any(gates[each] and updates[each].id not in accepted for each in wave):
            raise Again
    if published:
        columns = messages.publish_columns(list(published.values()))
        yield Query(messages.PUBLISH, {"namespace": scope.namespace} | columns)
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
    columns = messages.settle_columns(list(settlements.values()), None, scope.once_ttl)
    rows = yield Query(f"with {messages.HELD} select seq, token from held", columns)
    return {f"{seq}.{token}" for seq, token in rows}


def _lock_statuses(steps: Sequence[Step], scope: Scope) -> Flow[dict[str, TaskStatus | None]]:
    ids = sorted({update.id for step in steps for update in step.updates})
    if not ids:
        return {}
    rows = yield Query(statuses.LOCK, {"namespace": scope.namespace, "ids": Texts(ids)})
    return {status.id: status for status in map(statuses.status_of, rows)}
