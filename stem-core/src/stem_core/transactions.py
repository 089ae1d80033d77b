"""Publishes that commit or roll back with the caller's own transaction (``publish_connection``)."""

from __future__ import annotations

from stem_core.errors import UnsupportedCapability
from stem_core.planning import Draft
from stem_core.ports.committer import Step
from stem_core.wiring import Wiring

__all__ = ["commit_on", "commit_on_sync"]


async def commit_on(wiring: Wiring, draft: Draft) -> None:
    """Publish on the caller's async connection, on the caller's loop.

    :raises UnsupportedCapability: the broker cannot, and there is no outbox.
    :raises ConfigurationError: the connection is none this adapter understands, or a sync one.
    """
    step = _step(wiring, draft)
    await wiring.broker.commit_on(draft.plan.asked.publish_connection, [step])
    wiring.emit("stem_after_publish", envelope=draft.publish.envelope, accepted=True)


def commit_on_sync(wiring: Wiring, draft: Draft) -> None:
    """Publish on the caller's sync connection, on the caller's thread.

    :raises UnsupportedCapability: as :func:`commit_on`.
    """
    step = _step(wiring, draft)
    wiring.broker.commit_on_sync(draft.plan.asked.publish_connection, [step])
    wiring.emit("stem_after_publish", envelope=draft.publish.envelope, accepted=True)


def _step(wiring: Wiring, draft: Draft) -> Step:
    if not wiring.broker.capabilities.transactional_publish:
        raise UnsupportedCapability(
            f"Task {draft.publish.envelope.name!r} has publish_connection, and {type(wiring.broker).__name__} cannot "
            "publish in a caller's transaction (capability 'transactional_publish'); use postgresql:// as the "
            "broker, or Stem(outbox=...)"
        )
    wiring.emit("stem_before_publish", envelope=draft.publish.envelope)
    # Only one store can write the row in the same transaction; a row without its message would be a lie.
    if wiring.committer is None:
        return Step(publishes=(draft.publish.message,))
    return draft.publish.step()
