"""Drafts published on the home loop: plain ones, many at once, and unique ones behind their lock."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from stem_core.coalescing import Coalescer
from stem_core.errors import AdapterError, PublishError, StemError
from stem_core.planning import Draft
from stem_core.ports.backend import Backend
from stem_core.sending import Publish
from stem_core.shared import uniqueness

__all__ = ["publish_many", "publish_one"]


async def publish_one(
    coalescer: Coalescer, backend: Backend | None, publish: Publish, locked_for: float
) -> str | None:
    """Publish one message. Returns the id of the task it is a duplicate of, if it is one.

    :param locked_for: see :attr:`Draft.locked_for`.
    :raises PublishError: it was not, or may not have been, stored.
    """
    if publish.envelope.unique is None or backend is None:
        await coalescer.publish(publish)
        return None
    # A task of its own: a caller that gives up half-way must not leave the lock to nobody.
    task = asyncio.ensure_future(_publish_unique(coalescer, backend, publish, locked_for))
    task.add_done_callback(_retrieve)
    return await asyncio.shield(task)


async def publish_many(
    coalescer: Coalescer, backend: Backend | None, drafts: Sequence[Draft]
) -> list[str | BaseException | None]:
    """Publish drafts in as few round trips as may be. For each: None, the id it duplicates, or its error."""
    answers: list[str | BaseException | None] = [None] * len(drafts)
    plain = [i for i, each in enumerate(drafts) if each.publish.envelope.unique is None]
    several = [drafts[i].publish for i in plain]
    for i, error in zip(plain, await coalescer.publish_many(several), strict=True):
        answers[i] = error
    other = [i for i, each in enumerate(drafts) if each.publish.envelope.unique is not None]
    if other:
        found = await asyncio.gather(
            *(publish_one(coalescer, backend, drafts[i].publish, drafts[i].locked_for) for i in other),
            return_exceptions=True,
        )
        for i, answer in zip(other, found, strict=True):
            answers[i] = answer
    return answers


async def _publish_unique(
    coalescer: Coalescer, backend: Backend, publish: Publish, locked_for: float
) -> str | None:
    id, lock = publish.envelope.id, publish.envelope.unique or ""
    kept = locked_for if publish.queued is None or publish.queued.ttl is None else publish.queued.ttl
    try:
        async with asyncio.timeout(coalescer.timeout):
            await coalescer.ready()
            holder = await uniqueness.acquire(backend, lock, id, locked_for)
            if holder != id:
                await uniqueness.note_duplicate(backend, holder, kept)
                return holder
    except (AdapterError, TimeoutError) as error:
        raise PublishError(
            f"Task {publish.envelope.name!r} ({id}) was not published: its lock could not be taken: "
            f"{str(error) or 'no answer in time'}",
            "refused",
        ) from error
    try:
        await coalescer.publish(publish)
    except StemError as error:
        if getattr(error, "outcome", "refused") == "refused":
            await uniqueness.release(backend, lock, id)
        raise
    return None


def _retrieve(task: asyncio.Future[str | None]) -> None:
    """Look at the error, so that one nobody waits for any more is not reported as forgotten."""
    if not task.cancelled():
        task.exception()
