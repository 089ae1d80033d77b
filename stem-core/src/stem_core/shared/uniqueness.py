"""One at a time: locks of unique tasks.

State key ``unique:<lock>``: the id of the task that holds it, as ASCII. ``<lock>`` is ``Envelope.unique``, a hash
of name, queue and value-encoded arguments. Taken before the ``queued`` row, released when the publish was
refused and after the task's end; who finds a holder that has ended takes it over.
"""

from __future__ import annotations

import hashlib
from typing import Final

from stem_core.errors import StemError
from stem_core.ports.backend import Backend
from stem_core.status import PUBLISH_FAILED, StatusUpdate

__all__ = ["DUPLICATES_META", "acquire", "lock_key", "note_duplicate", "release"]

#: How often a duplicate of the task was asked for, counted in its meta.
DUPLICATES_META: Final = "stem.duplicates"

_TRIES: Final = 20


def lock_key(name: str, queue: str, unique_key: str | None, value: bytes) -> str:
    """The lock of a unique call: the same for the same task, queue and arguments, or ``unique_key``."""
    parts = (name.encode(), queue.encode(), b"key" if unique_key is not None else b"args")
    digest = hashlib.sha256()
    for part in (*parts, value if unique_key is None else unique_key.encode()):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


async def acquire(backend: Backend, lock: str, id: str, ttl: float) -> str:
    """Take ``lock`` for task ``id``. Returns who holds it now: ``id``, or the task this is a duplicate of.

    :param ttl: seconds after which it is free whatever happened.
    """
    key = _key(lock)
    if await backend.state_write(key, id.encode(), expect=0, ttl=ttl) is not None:
        return id
    for _ in range(_TRIES):
        found = await backend.state_read(key)
        holder = None if found.value is None else found.value.decode()
        if holder == id:
            return id
        if holder is not None and not await _has_ended(backend, holder):
            return holder
        if await backend.state_write(key, id.encode(), expect=found.version, ttl=ttl) is not None:
            return id
    raise StemError(f"The lock of unique task {id} changed hands {_TRIES} times meanwhile; enqueue it again.")


async def release(backend: Backend, lock: str, id: str) -> None:
    """Free ``lock`` if task ``id`` holds it."""
    found = await backend.state_read(_key(lock))
    if found.value == id.encode():
        await backend.state_delete(_key(lock), expect=found.version)


async def note_duplicate(backend: Backend, holder: str, ttl: float) -> None:
    """Count a duplicate in the holder's meta, as far as its status stands still meanwhile.

    :param ttl: seconds its status is kept from now.
    """
    (status,) = await backend.fetch([holder])
    if status is None or status.terminal:
        return
    update = StatusUpdate(
        id=holder,
        state=status.state,
        generation=status.generation,
        attempt=status.attempt,
        reason=status.reason,
        meta={DUPLICATES_META: int(status.meta.get(DUPLICATES_META, 0)) + 1},
        ttl=ttl,
    )
    await backend.record([update])


def _key(lock: str) -> str:
    return f"unique:{lock}"


async def _has_ended(backend: Backend, id: str) -> bool:
    """Whether task ``id`` needs its lock no more. One without a status may be on its way to its publish."""
    (status,) = await backend.fetch([id])
    return status is not None and (status.terminal or status.reason == PUBLISH_FAILED)
