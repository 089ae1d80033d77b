"""A batch of publishes on its way to the store, and what is known of each afterwards.

With a committer message and ``queued`` row are one step of one commit. Without one the row is recorded
first, so that whoever sees the task run can see it queued.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec

from stem_core.envelope import Envelope, Message
from stem_core.errors import AdapterError, PayloadTooLarge, PublishError, StemError, UnsupportedCapability
from stem_core.options import TaskRetryPolicy
from stem_core.ports.committer import Ended, Step
from stem_core.status import PUBLISH_FAILED, StatusUpdate, TaskError, TaskState
from stem_core.wiring import Wiring

__all__ = ["Publish", "note_stored", "out_of_reach", "record_refused", "send", "start", "unknown_fate"]

_log = logging.getLogger("stem")


class Publish(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One message ready to go. ``retry`` is how often and how to try again when the store is out of reach."""

    envelope: Envelope
    message: Message
    queued: StatusUpdate | None = None
    retry: TaskRetryPolicy | None = None

    def step(self) -> Step:
        """Message and row as one step."""
        updates = () if self.queued is None else (self.queued,)
        return Step(updates=updates, publishes=(self.message,))


#: These promise that nothing was stored, as ``PublishError(outcome="refused")`` does; nothing else does (law 1).
_DEFINITE = (PayloadTooLarge, UnsupportedCapability)


def start(wiring: Wiring, batch: Sequence[Publish], timeout: float, ended: Ended) -> bool:
    """Begin to publish ``batch`` without waiting, where the store can; see :meth:`Starter.start`."""
    starter = wiring.starter
    return starter is not None and starter.start([each.step() for each in batch], timeout, ended)


async def send(
    wiring: Wiring, batch: Sequence[Publish], failure: Exception | None = None
) -> list[StemError | None]:
    """Publish ``batch``; None for each that is stored, else its error.

    :param failure: what it failed with already, when it was started.

    A definite refusal is narrowed down by smaller sends to the messages that deserve it. After anything else
    any part of the batch may be stored: each gets a :exc:`PublishError` with ``outcome="unknown"``.
    """
    try:
        if failure is not None:
            raise failure
        accepted = await _store(wiring, batch)
    except PublishError as error:
        if error.outcome == "unknown":
            return [unknown_fate(each, error) for each in batch]
        if isinstance(error.__cause__, AdapterError):  # the store's fault (full, read only), not a message's
            return [_refused(each, error) for each in batch]
        refusal: Exception = error
    except _DEFINITE as error:
        refusal = error
    except _NotRecorded as error:
        if isinstance(error.__cause__, AdapterError):  # the store's fault, not a message's
            return [_refused(each, error) for each in batch]
        refusal = error
    except Exception as error:  # noqa: BLE001 (an adapter may raise anything; the fate is unknown)
        return [unknown_fate(each, error) for each in batch]
    else:
        note_stored(wiring, batch, accepted)
        return [None] * len(batch)
    if len(batch) == 1:
        return [_refused(batch[0], refusal)]
    middle = len(batch) // 2
    return await send(wiring, batch[:middle]) + await send(wiring, batch[middle:])


def note_stored(wiring: Wiring, batch: Sequence[Publish], accepted: Sequence[bool]) -> None:
    """Tell who watches that ``batch`` is stored."""
    if wiring.hooks("stem_after_publish"):
        for each, stored in zip(batch, accepted, strict=True):
            wiring.emit("stem_after_publish", envelope=each.envelope, accepted=stored)


async def record_refused(wiring: Wiring, publish: Publish, error: StemError) -> None:
    """Record that a publish was refused, so that nobody waits for the task. The error itself goes to the caller."""
    if wiring.backend is None or publish.queued is None:
        return
    update = StatusUpdate(
        id=publish.envelope.id,
        state=TaskState.FAILED,
        name=publish.envelope.name,
        queue=publish.envelope.queue,
        reason=PUBLISH_FAILED,
        error=TaskError(type(error).__name__, str(error)),
        meta=publish.queued.meta,
        enqueued_at=publish.envelope.enqueued_at,
        ttl=publish.queued.ttl,
    )
    try:
        await wiring.backend.record([update])
    except Exception:  # noqa: BLE001 (the caller gets the publish's error, which matters more)
        _log.exception("Task %s was not published, and that could not be recorded", publish.envelope.id)


async def _store(wiring: Wiring, batch: Sequence[Publish]) -> Sequence[bool]:
    if wiring.committer is not None:
        return await wiring.committer.commit([each.step() for each in batch])
    if wiring.backend is not None:
        queued = [each.queued for each in batch if each.queued is not None]
        if queued:
            try:
                await wiring.backend.record(queued)
            except Exception as error:
                raise _NotRecorded(f"its status could not be recorded: {error}") from error
    return await wiring.broker.publish([each.message for each in batch])


def unknown_fate(publish: Publish, error: BaseException) -> StemError:
    """The error of a publish that may have been stored."""
    why = "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
    result = PublishError(
        f"Task {publish.envelope.name!r} ({publish.envelope.id}) may or may not have been published: {why}. To be "
        "able to repeat a publish safely, give it a task_id or retry=True.",
        "unknown",
    )
    result.__cause__ = error
    return result


def out_of_reach(publish: Publish, error: BaseException) -> StemError:
    """The error of a publish that was never sent: its store could not be reached."""
    why = "no answer in time" if isinstance(error, TimeoutError) else str(error)
    result = PublishError(
        f"Task {publish.envelope.name!r} ({publish.envelope.id}) was not published, the store is out of reach: {why}",
        "refused",
    )
    result.__cause__ = error
    return result


def _refused(publish: Publish, error: Exception) -> StemError:
    if isinstance(error, StemError) and not isinstance(error, PublishError):
        return error
    result = PublishError(
        f"Task {publish.envelope.name!r} ({publish.envelope.id}) was refused: {error}", "refused"
    )
    result.__cause__ = error.__cause__ if isinstance(error, _NotRecorded) else error
    return result


class _NotRecorded(Exception):
    """The backend failed before anything was published; the cause is its error."""
