"""When derived messages are due that the broker hands out too early, for it cannot delay or not for so long.

A derived ``delay`` counts from the publish, which the sealed bytes cannot know. Whoever published it has left an
end in the backend: a parent, or the member that completed a group. The first worker that is handed such a message
notes when it is due in the message's own row, whose life covers the delay; every later one reads it there.

Meta key of a status: ``stem.due``, seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from stem_core.envelope import Envelope
from stem_core.ports.backend import Backend
from stem_core.publishing import queued_of
from stem_core.status import StatusUpdate, TaskStatus
from stem_core.worker.run import Run

__all__ = ["DUE_META", "note_due"]

DUE_META: Final = "stem.due"


async def note_due(runs: Sequence[tuple[Run, TaskStatus | None]], backend: Backend, now: float) -> None:
    """Set ``due`` of each run; its row is beside it. What has run before was due.

    :raises StemError: the backend cannot be asked.
    """
    new: list[Run] = []
    for run, status in runs:
        if status is not None and DUE_META in status.meta:
            run.due = float(status.meta[DUE_META])
        elif status is None or status.rank == 0:
            new.append(run)
    if not new:
        return
    updates: list[StatusUpdate] = []
    for run, since in zip(new, await _published([run.envelope for run in new], backend, now), strict=True):
        run.due = since + run.envelope.delay
        row = queued_of(run.envelope, generation=run.delivery.generation)
        updates.append(msgspec.structs.replace(row, meta={**row.meta, DUE_META: run.due}))
    await backend.record(updates)


async def _published(envelopes: Sequence[Envelope], backend: Backend, now: float) -> list[float]:
    """When each was published, or ``now`` where nobody knows any more: late is better than early."""
    publishers = [await _publisher(each, backend) for each in envelopes]
    ids = [each for each in dict.fromkeys(publishers) if each]
    ends = {
        status.id: status.finished_at.timestamp()
        for status in (await backend.fetch(ids) if ids else ())
        if status is not None and status.finished_at is not None
    }
    return [
        each.enqueued_at.timestamp() if publisher is None else ends.get(publisher, now)
        for each, publisher in zip(envelopes, publishers, strict=True)
    ]


async def _publisher(envelope: Envelope, backend: Backend) -> str | None:
    """The task whose end published it; "" when that is not known, None when its producer did at once."""
    wanted = envelope.input
    if wanted is None:
        return None  # where a graph begins, whatever task submitted it
    if wanted.group is None:
        return wanted.task or ""
    record = await backend.group_get(wanted.group, outcomes=False)
    return "" if record is None else record.completed_by or ""
