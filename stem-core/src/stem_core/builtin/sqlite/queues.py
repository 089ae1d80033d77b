"""What can happen to messages, as functions of a write transaction: laws 1 to 17."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from stem_core.builtin.sqlite.unit import Unit, insert, listed
from stem_core.clock import instant
from stem_core.envelope import Ack, Action, DeadLetter, Delivery, Message, Release, Retry
from stem_core.ports.broker import QueueStats

__all__ = [
    "MESSAGE",
    "claim",
    "extend",
    "forget",
    "held",
    "message_of",
    "next_event",
    "publish",
    "purge",
    "settle",
    "stats",
    "withdraw",
]

#: Remembered ids forgotten for each one added, at most.
_FORGET: Final = 4

MESSAGE: Final = "CAST(m.id AS TEXT), m.priority, m.once, m.not_before, m.delay, CAST(m.sealed AS BLOB)"


# publish


def publish(unit: Unit, ns: int, messages: Sequence[Message]) -> list[bool]:
    """Add them; False for each whose id is known in its queue. Ids are unique there, ``once`` or not."""
    numbers = [unit.queue(ns, message.queue) for message in messages]
    taken = _taken(unit, [message.id for message in messages])
    remembered = _remembered(unit, [message.id for message in messages if message.once])
    seq = unit.value("SELECT coalesce(max(seq), 0) FROM messages")
    stored: list[Sequence[Any]] = []
    ready: list[Sequence[Any]] = []
    scheduled: list[Sequence[Any]] = []
    added: list[bool] = []
    for message, queue in zip(messages, numbers, strict=True):
        key = (queue, message.id)
        new = key not in taken and not (message.once and key in remembered)
        added.append(new)
        if not new:
            continue
        taken.add(key)
        seq += 1
        moment = None if message.not_before is None else message.not_before.timestamp()
        due = max(unit.now + message.delay, moment or 0.0)
        stored.append(
            (seq, queue, message.id, message.priority, message.once, moment, message.delay, 1, message.sealed)
        )
        if due > unit.now:
            scheduled.append((seq, queue, -message.priority, due, 0, 0, 0))
        else:
            ready.append((queue, -message.priority, seq, unit.now, 0, 0, 0))
        unit.woken.add((ns, message.queue))
    insert(unit, "messages", 9, stored)
    insert(unit, "ready", 7, ready)
    insert(unit, "scheduled", 7, scheduled)
    return added


def _taken(unit: Unit, ids: Sequence[str]) -> set[tuple[int, str]]:
    found = unit.rows(
        "SELECT queue, id FROM messages WHERE id IN (SELECT value FROM json_each(?))", (listed(ids),)
    )
    return {(queue, id) for queue, id in found}


def _remembered(unit: Unit, ids: Sequence[str]) -> set[tuple[int, str]]:
    if not ids:
        return set()
    found = unit.rows(
        "SELECT queue, id FROM remembered WHERE id IN (SELECT value FROM json_each(?)) AND until > ?",
        (listed(ids), unit.now),
    )
    return {(queue, id) for queue, id in found}


def forget(unit: Unit, gone: Iterable[int], once_ttl: float) -> None:
    """These seqs left for good; remember the ids among them that may be published again."""
    seqs = listed(gone)
    kept = unit.execute(
        "INSERT INTO remembered SELECT NULL, queue, id, ? FROM messages "
        "WHERE seq IN (SELECT value FROM json_each(?)) AND once "
        "ON CONFLICT (id, queue) DO UPDATE SET until = excluded.until",
        (unit.now + once_ttl, seqs),
    ).rowcount
    if kept:
        unit.execute(
            "DELETE FROM remembered WHERE n IN (SELECT n FROM remembered ORDER BY n LIMIT ?) AND until <= ?",
            (_FORGET * kept, unit.now),
        )
    unit.execute("DELETE FROM messages WHERE seq IN (SELECT value FROM json_each(?))", (seqs,))


# receive


def claim(unit: Unit, ns: int, names: Sequence[str], limit: int, lease: float) -> list[Delivery]:
    """Lease up to ``limit`` ready messages: highest level first, queues of one level in turn.

    What is taken of a queue is always the head of its order, so a range says it.
    """
    numbers = {unit.queue(ns, name): name for name in names}
    for queue in numbers:
        _advance(unit, queue)
    token = secrets.randbits(62)
    until = unit.now + lease
    lease_until, receipt_end = instant(until), f".{token:x}"
    deliveries: list[Delivery] = []
    for queue, count in _shares(unit, list(numbers), limit).items():
        rows = unit.rows(
            f"SELECT r.level, r.seq, r.generation, r.attempt, r.deliveries + 1, {MESSAGE} "  # noqa: S608
            "FROM ready r JOIN messages m ON m.seq = r.seq WHERE r.queue = ? ORDER BY r.level, r.seq LIMIT ?",
            (queue, count),
        )
        if rows:
            head = (queue, *rows[-1][:2])
            unit.execute(
                "INSERT INTO leased SELECT seq, queue, level, ?, ?, generation, attempt, deliveries + 1 "
                "FROM ready WHERE queue = ? AND (level, seq) <= (?, ?)",
                (token, until, *head),
            )
            unit.execute("DELETE FROM ready WHERE queue = ? AND (level, seq) <= (?, ?)", head)
            name = numbers[queue]
            deliveries += [
                Delivery(
                    message=message_of(name, message),
                    receipt=f"{seq:x}{receipt_end}",
                    lease_until=lease_until,
                    generation=generation,
                    attempt=attempt,
                    deliveries=hand_outs,
                )
                for _, seq, generation, attempt, hand_outs, *message in rows
            ]
    return deliveries if len(numbers) == 1 else _in_turn(deliveries)


def _advance(unit: Unit, queue: int) -> None:
    """What time brings: due messages become ready, ended leases are lost."""
    for table, moment in (("scheduled", "due"), ("leased", "until")):
        late = f"FROM {table} WHERE queue = ? AND {moment} <= ?"
        if unit.value(f"SELECT 1 {late} LIMIT 1", (queue, unit.now)) is not None:
            unit.execute(
                f"INSERT INTO ready SELECT queue, level, seq, {moment}, generation, attempt, deliveries {late}",
                (queue, unit.now),
            )
            unit.execute(f"DELETE {late}", (queue, unit.now))


def _shares(unit: Unit, queues: Sequence[int], limit: int) -> dict[int, int]:
    """How many of the next ``limit`` messages come from each queue."""
    if len(queues) == 1:
        return {queues[0]: limit}
    found = {
        queue: unit.rows(
            "SELECT level FROM ready WHERE queue = ? ORDER BY level, seq LIMIT ?", (queue, limit)
        )
        for queue in queues
    }
    return Counter(queue for *_, queue in sorted(_turns(found))[:limit])


def _turns(found: dict[int, list[tuple[int]]]) -> Iterator[tuple[int, int, int, int]]:
    """(level, turn within that level of its queue, place of the queue, queue) of each row."""
    for place, (queue, rows) in enumerate(found.items()):
        turns = Counter[int]()
        for (level,) in rows:
            yield level, turns[level], place, queue
            turns[level] += 1


def _in_turn(deliveries: list[Delivery]) -> list[Delivery]:
    """What comes queue by queue, by level and then one of each queue in turn."""
    turns = Counter[tuple[str, int]]()
    keyed = []
    for place, delivery in enumerate(deliveries):
        queue, level = delivery.message.queue, -delivery.message.priority
        keyed.append((level, turns[queue, level], place))
        turns[queue, level] += 1
    return [deliveries[place] for *_, place in sorted(keyed)]


def message_of(queue: str, row: Sequence[Any]) -> Message:
    """The message in the columns of ``MESSAGE``, whatever a stranger put there."""
    id, priority, once, not_before, delay, sealed = row
    return Message(
        id=id,
        queue=queue,
        sealed=sealed or b"",
        priority=priority,
        not_before=None if not_before is None else instant(not_before),
        delay=delay,
        once=bool(once),
    )


def next_event(unit: Unit, ns: int, names: Sequence[str]) -> float | None:
    """When something of these queues is to be had: at once (0) or at a time; None when only a publish helps."""
    times: list[float] = []
    for (queue,) in unit.rows(
        "SELECT queue FROM queues WHERE ns = ? AND name IN (SELECT value FROM json_each(?))",
        (ns, listed(names)),
    ):
        if unit.value("SELECT 1 FROM ready WHERE queue = ? LIMIT 1", (queue,)) is not None:
            return 0.0
        due = unit.value("SELECT min(due) FROM scheduled WHERE queue = ?", (queue,))
        until = unit.value("SELECT min(until) FROM leased WHERE queue = ?", (queue,))
        times += [time for time in (due, until) if time is not None]
    return min(times, default=None)


# settle


def held(unit: Unit, ns: int, receipts: Sequence[str]) -> dict[str, int]:
    """The seq of each receipt that is good; ended leases are, until somebody takes them back."""
    parsed = {receipt: pair for receipt in receipts if (pair := _parsed(receipt)) is not None}
    if not parsed:
        return {}
    found = set(
        unit.rows(
            "SELECT seq, token FROM leased WHERE seq IN (SELECT value FROM json_each(?)) "
            "AND queue IN (SELECT queue FROM queues WHERE ns = ?)",
            (listed(seq for seq, _ in parsed.values()), ns),
        )
    )
    return {receipt: pair[0] for receipt, pair in parsed.items() if pair in found}


def _parsed(receipt: str) -> tuple[int, int] | None:
    seq, _, token = receipt.partition(".")
    try:
        return int(seq, 16), int(token, 16)
    except ValueError:
        return None


def settle(unit: Unit, ns: int, actions: Mapping[int, Action], once_ttl: float) -> None:
    """Do to each leased seq what its action says. Nearly all are acks, and need nothing of their rows."""
    acked = [seq for seq, action in actions.items() if isinstance(action, Ack)]
    if len(acked) < len(actions):
        _put_back(unit, ns, {seq: action for seq, action in actions.items() if not isinstance(action, Ack)})
    unit.execute("DELETE FROM leased WHERE seq IN (SELECT value FROM json_each(?))", (listed(actions),))
    if acked:
        forget(unit, acked, once_ttl)


def _put_back(unit: Unit, ns: int, actions: Mapping[int, Retry | Release | DeadLetter]) -> None:
    """Where retried, released and dead ones go, with the counts they then have."""
    ready: list[Sequence[Any]] = []
    scheduled: list[Sequence[Any]] = []
    dead: list[Sequence[Any]] = []
    found = {
        row[0]: row[1:]
        for row in unit.rows(
            "SELECT l.seq, l.queue, q.name, l.level, l.generation, l.attempt, l.deliveries FROM leased l "
            "JOIN queues q ON q.queue = l.queue WHERE l.seq IN (SELECT value FROM json_each(?))",
            (listed(actions),),
        )
    }
    for seq, action in actions.items():
        queue, name, level, generation, attempt, deliveries = found[seq]
        if isinstance(action, DeadLetter):
            dead.append((None, seq, queue, action.reason, action.detail, unit.now, generation, attempt))
            continue
        retry = isinstance(action, Retry)
        counts = (generation, attempt + retry, 0 if retry else deliveries - 1)
        if action.delay > 0:
            scheduled.append((seq, queue, level, unit.now + action.delay, *counts))
        else:
            ready.append((queue, level, seq, unit.now, *counts))
        unit.woken.add((ns, name))
    insert(unit, "ready", 7, ready)
    insert(unit, "scheduled", 7, scheduled)
    insert(unit, "dead", 8, dead)


def extend(unit: Unit, ns: int, receipts: Sequence[str], lease: float) -> list[bool]:
    good = held(unit, ns, receipts)
    seqs = listed(good.values())
    unit.execute(
        "UPDATE leased SET until = ? WHERE seq IN (SELECT value FROM json_each(?))", (unit.now + lease, seqs)
    )
    names = unit.rows(
        "SELECT DISTINCT q.name FROM leased l JOIN queues q ON q.queue = l.queue "
        "WHERE l.seq IN (SELECT value FROM json_each(?))",
        (seqs,),
    )
    unit.woken |= {(ns, name) for (name,) in names}  # a shorter lease may be the next to end
    return [receipt in good for receipt in receipts]


# operate


def stats(unit: Unit, ns: int, name: str) -> QueueStats:
    """Counts by the clock, whether or not anybody moved what is due; and the longest wait among the messages that
    are next in their levels. Counting reads narrow rows; it is linear in what it counts.
    """
    queue = unit.value("SELECT queue FROM queues WHERE ns = ? AND name = ?", (ns, name))
    if queue is None:
        return QueueStats()

    def count(what: str) -> int:
        return int(unit.value(f"SELECT count(*) FROM {what}", {"queue": queue, "now": unit.now}))  # type: ignore[arg-type]  # noqa: S608

    due = count("scheduled WHERE queue = :queue AND due <= :now")
    ended = count("leased WHERE queue = :queue AND until <= :now")
    heads = [
        since
        for level in range(10)
        if (
            since := unit.value(
                "SELECT since FROM ready WHERE queue = ? AND level = ? ORDER BY seq LIMIT 1", (queue, -level)
            )
        )
        is not None
    ]
    heads += [unit.value("SELECT min(due) FROM scheduled WHERE queue = ?", (queue,))] if due else []
    heads += [unit.value("SELECT min(until) FROM leased WHERE queue = ?", (queue,))] if ended else []
    return QueueStats(
        ready=count("ready WHERE queue = :queue") + due + ended,
        scheduled=count("scheduled WHERE queue = :queue AND due > :now"),
        leased=count("leased WHERE queue = :queue AND until > :now"),
        dead=count("dead WHERE queue = :queue"),
        oldest_ready_age=unit.now - min(heads) if heads else None,
    )


def purge(unit: Unit, ns: int, name: str, once_ttl: float) -> int:
    queue = unit.queue(ns, name)
    _advance(unit, queue)
    places = "SELECT seq FROM ready WHERE queue = ? UNION ALL SELECT seq FROM scheduled WHERE queue = ?"
    gone = [seq for (seq,) in unit.rows(places, (queue, queue))]
    unit.execute("DELETE FROM ready WHERE queue = ?", (queue,))
    unit.execute("DELETE FROM scheduled WHERE queue = ?", (queue,))
    forget(unit, gone, once_ttl)
    return len(gone)


def withdraw(unit: Unit, ns: int, ids: Sequence[str], once_ttl: float) -> list[bool]:
    """Remove each from every queue where it is ready or scheduled."""
    found = unit.rows(
        "SELECT m.seq, m.queue, m.id, m.priority FROM messages m JOIN queues q ON q.queue = m.queue "
        "WHERE m.id IN (SELECT value FROM json_each(?)) AND q.ns = ?",
        (listed(ids), ns),
    )
    gone: dict[int, str] = {}
    for queue in {row[1] for row in found}:
        _advance(unit, queue)
    for seq, queue, id, priority in found:
        removed = (
            unit.execute(
                "DELETE FROM ready WHERE queue = ? AND level = ? AND seq = ?", (queue, -priority, seq)
            ).rowcount
            or unit.execute("DELETE FROM scheduled WHERE seq = ?", (seq,)).rowcount
        )
        if removed:
            gone[seq] = id
    if gone:
        forget(unit, gone, once_ttl)
    withdrawn = set(gone.values())
    return [id in withdrawn for id in ids]
