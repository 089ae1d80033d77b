"""Calling tasks off.

State key ``revoked:<task id>``: JSON ``{"terminate": bool, "at": epoch seconds by the store's clock}``. The
worker that meets the message reads it, records ``cancelled`` and forgets the key. One that came too late is forgotten
by who wrote it, or by the next worker that looks once the task has ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from stem_core.clock import instant
from stem_core.errors import ConfigurationError, StemError, UnsupportedCapability
from stem_core.ports.backend import Backend, GroupOutcome, Outcome
from stem_core.ports.committer import Step
from stem_core.publishing import GROUP_META, REPLIES_META
from stem_core.shared.telling import command, tell
from stem_core.status import StatusUpdate, TaskError, TaskState, TaskStatus
from stem_core.wiring import Wiring

__all__ = ["REVOKED", "Known", "Revocation", "forget", "forget_ended", "key_of", "known", "read", "revoke"]

#: The ``reason`` of a cancelled task that was revoked.
REVOKED: Final = "revoked"
#: How long a revocation is kept, in seconds: longer than any message should wait.
KEPT: Final = 90 * 86_400.0
#: How long the status of a revoked task is kept, in seconds: its envelope, which knows better, is gone.
RESULT_TTL: Final = 86_400.0
_TRIES: Final = 10
_PREFIX: Final = "revoked:"


class Revocation(msgspec.Struct, frozen=True):
    """That a task is called off; ``terminate`` also when it runs."""

    at: float
    terminate: bool = False


class Known(NamedTuple):
    """A revocation as a worker sees it: whether a run is to be stopped too, and the version of its key."""

    terminate: bool
    version: int


_decoder = msgspec.json.Decoder(Revocation)


def key_of(id: str) -> str:
    """The state key of a revocation."""
    return _PREFIX + id


async def read(backend: Backend, id: str) -> Revocation | None:
    """Whether the task is called off."""
    found = await backend.state_read(key_of(id))
    return None if found.value is None else _decoder.decode(found.value)


async def known(backend: Backend) -> dict[str, Known]:
    """Every revocation there is, by task id."""
    entries = await backend.state_scan(_PREFIX)
    return {
        entry.key.removeprefix(_PREFIX): Known(_decoder.decode(entry.value).terminate, entry.version)
        for entry in entries
    }


async def forget(backend: Backend, id: str) -> None:
    """Remove a revocation that was acted on."""
    await backend.state_delete(key_of(id))


async def forget_ended(backend: Backend, revoked: Mapping[str, int]) -> frozenset[str]:
    """Remove the revocations of tasks that have ended. Answers which ones.

    :param revoked: task id -> version of its key, as it was before this looks at the task: a later word stands.
    """
    if not revoked:
        return frozenset()
    statuses = await backend.fetch(list(revoked))
    ended = [each.id for each in statuses if each is not None and each.terminal]
    for id in ended:
        await backend.state_delete(key_of(id), expect=revoked[id])
    return frozenset(ended)


async def revoke(wiring: Wiring, id: str, *, terminate: bool = False) -> bool:
    """Call the task off. True when it is recorded cancelled by now, False when that is up to a worker, or too late.

    :raises ConfigurationError: there is no backend to write it to.
    :raises UnsupportedCapability: the backend has no shared state.
    """
    backend = wiring.backend
    if backend is None:
        raise ConfigurationError(
            f"Task {id} cannot be revoked: this Stem has no backend. Give one: backend=URL."
        )
    if not backend.capabilities.state:
        raise UnsupportedCapability(
            f"Task {id} cannot be revoked: {type(backend).__name__} has no shared state (capability 'state'); use "
            "a backend with it, such as sqlite:// or redis://"
        )
    (status,) = await backend.fetch([id])
    if status is not None and status.terminal:
        return status.state is TaskState.CANCELLED
    at, version = await _write(backend, id, terminate)
    await tell(wiring, command("revoke"))
    # A withdrawn message sends no reply, so one that owes a reply is left to the worker that meets it.
    owes_reply = status is not None and status.meta.get(REPLIES_META)
    if not owes_reply and wiring.broker.capabilities.withdraw:
        (withdrawn,) = await wiring.broker.withdraw([id])
        if withdrawn:
            await _record(wiring, backend, id, status, at)
            await forget(backend, id)
            return True
    await forget_ended(backend, {id: version})  # it may have ended just before the key was written
    return False


async def _write(backend: Backend, id: str, terminate: bool) -> tuple[datetime, int]:
    """When it was written, and the version of the key."""
    key = key_of(id)
    for _ in range(_TRIES):
        found = await backend.state_read(key)
        if found.value is not None:
            terminate = terminate or _decoder.decode(found.value).terminate
        value = msgspec.json.encode(Revocation(found.now.timestamp(), terminate))
        version = await backend.state_write(key, value, expect=found.version, ttl=KEPT)
        if version is not None:
            return instant(found.now), version
    raise StemError(f"Task {id} could not be revoked: its key {key!r} changed {_TRIES} times meanwhile.")


async def _record(wiring: Wiring, backend: Backend, id: str, status: TaskStatus | None, at: datetime) -> None:
    """What the worker would have recorded, had it met the message."""
    update = StatusUpdate(
        id=id,
        state=TaskState.CANCELLED,
        generation=status.generation if status else 0,
        attempt=status.attempt if status else 0,
        reason=REVOKED,
        finished_at=at,
        ttl=RESULT_TTL,
    )
    group = status.meta.get(GROUP_META) if status else None
    outcome = Outcome(TaskState.CANCELLED, error=TaskError("TaskRevoked", f"Task {id} was revoked."))
    if wiring.committer is not None:
        outcomes = (GroupOutcome(group, id, outcome),) if group else ()
        await wiring.committer.commit([Step(updates=(update,), outcomes=outcomes)])
        return
    await backend.record([update])
    if not group:
        return
    answer = await backend.group_add(group, id, outcome)
    record = await backend.group_get(group, outcomes=False) if answer.complete else None
    if record is not None and record.callback:
        await backend.record([each.queued for each in record.callback])
        await wiring.broker.publish([each.message for each in record.callback])
