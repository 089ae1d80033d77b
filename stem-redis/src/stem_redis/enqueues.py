"""New work, which most steps are, in the form that costs the server least: see ``scripts/enqueue.lua``.

A single message has a script of its own, ``scripts/enqueue_one.lua``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from stem_core.envelope import Message
from stem_core.ports.capabilities import BrokerCapabilities
from stem_core.ports.committer import Step
from stem_core.status import StatusUpdate
from stem_redis.batches import MOST_BYTES, MOST_STEPS, Call, Roots
from stem_redis.keys import Keys
from stem_redis.wire import index_hour, life, microseconds, pack_rows

__all__ = ["are_new_work", "enqueue_calls", "fit_one_call"]

#: Most values of meta: a script can hand on only so many arguments at once.
_MOST_META: Final = 100


def are_new_work(steps: Sequence[Step]) -> bool:
    """Whether each step is a message that is ready and its first status, and no id comes twice."""
    return all(map(_is_new_work, steps)) and len({step.publishes[0].id for step in steps}) == len(steps)


def fit_one_call(steps: Sequence[Step], capabilities: BrokerCapabilities) -> bool:
    """Whether this is new work for a single call, and nothing in it can be refused or known."""
    if not 0 < len(steps) <= MOST_STEPS or not are_new_work(steps):
        return False
    size = 0
    for step in steps:
        message = step.publishes[0]
        if message.once or message.route or not 0 <= message.priority < capabilities.priority_levels:
            return False
        size += len(message.sealed)
    most = MOST_BYTES if capabilities.max_size is None else min(MOST_BYTES, capabilities.max_size)
    return size < most


def _is_new_work(step: Step) -> bool:
    if not step.is_new_work():
        return False
    update, message = step.updates[0], step.publishes[0]
    return (
        message.not_before is None
        and not message.delay
        and update.name is not None
        and update.queue is not None
        and update.enqueued_at is not None
        and len(update.meta) <= _MOST_META
    )


def enqueue_calls(keys: Keys, steps: Sequence[Step]) -> tuple[str, Iterator[Call]]:
    """The script that does ``steps``, which :func:`are_new_work`, and its calls, in order."""
    if len(steps) == 1:
        return "enqueue_one", iter([_lone_call(keys, steps[0])])
    return "enqueue", _calls(keys, steps)


def _lone_call(keys: Keys, step: Step) -> Call:
    update, message = step.updates[0], step.publishes[0]
    assert update.enqueued_at is not None
    since = microseconds(update.enqueued_at)
    hour = index_hour(since)
    arguments: list[Any] = [
        keys.prefix,
        message.priority,
        int(message.once),
        hour,
        int(hour),
        life(update.ttl),
    ]
    arguments += (message.id, since, message.sealed, *_fields(update))
    return (keys.root(message.queue),), arguments


def _calls(keys: Keys, steps: Sequence[Step]) -> Iterator[Call]:
    """The calls of enqueue.lua.

    Messages that follow each other and differ in nothing but id, time and bytes share what they have in common.
    """
    at = 0
    while at < len(steps):
        roots, size, shared, count_at = Roots(keys), 0, None, 0
        arguments: list[Any] = [keys.prefix]
        when, micros, hour = None, "", ""
        for step in steps[at : at + MOST_STEPS]:
            update, message = step.updates[0], step.publishes[0]
            if update.enqueued_at is not when and update.enqueued_at is not None:
                when = update.enqueued_at
                since = microseconds(when)
                micros, hour = str(since), index_hour(since)
            here = _shared(message, update, hour)
            if here != shared:
                shared = here
                arguments += _head(roots.index(message.queue), message, update, hour)
                count_at = len(arguments) - 1
            sealed = message.sealed
            arguments += (message.id, micros, sealed)
            arguments[count_at] += 1
            at += 1
            size += len(sealed)
            if size >= MOST_BYTES:
                break
        yield roots.roots, arguments


def _shared(message: Message, update: StatusUpdate, hour: str) -> tuple[object, ...]:
    """What messages of one run have in common."""
    return (
        hour,
        message.queue,
        message.priority,
        message.once,
        update.name,
        update.queue,
        update.ttl,
        update.meta,
    )


def _head(root: int, message: Message, update: StatusUpdate, hour: str) -> list[Any]:
    """The start of a run; its last item is the number of its messages, none yet."""
    fields = _fields(update)
    return [root, message.priority, int(message.once), hour, life(update.ttl), len(fields), *fields, 0]


def _fields(update: StatusUpdate) -> list[Any]:
    """Names and values of the status, but for its order and time."""
    fields: list[Any] = ["n", update.name, "q", update.queue]
    for key, value in update.meta.items():
        fields += (f"m:{key}", pack_rows(value))
    return fields
