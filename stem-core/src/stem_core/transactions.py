"""Publishes that commit or roll back with the caller's own transaction (``publish_connection``).

Through the broker where it can write on the caller's connection, else into the outbox, whose relay publishes
what was committed.
"""

from __future__ import annotations

from stem_core.errors import UnsupportedCapability
from stem_core.planning import Draft
from stem_core.ports.committer import Step
from stem_core.ports.outbox import Outbox
from stem_core.wiring import Wiring

__all__ = ["commit_on", "commit_on_sync"]


async def commit_on(wiring: Wiring, draft: Draft) -> None:
    """Publish on the caller's async connection, on the caller's loop.

    :raises UnsupportedCapability: the broker cannot, and there is no outbox.
    :raises ConfigurationError: the connection is a sync one, or none this adapter understands.
    """
    outbox = _outbox(wiring, draft)
    wiring.emit("stem_before_publish", envelope=draft.publish.envelope)
    connection = draft.plan.asked.publish_connection
    if outbox is not None:
        await outbox.write(connection, [draft.publish.message])
    else:
        await wiring.broker.commit_on(connection, [_step(wiring, draft)])
    wiring.emit("stem_after_publish", envelope=draft.publish.envelope, accepted=True)


def commit_on_sync(wiring: Wiring, draft: Draft) -> None:
    """Publish on the caller's sync connection, on the caller's thread.

    :raises UnsupportedCapability: as :func:`commit_on`.
    :raises ConfigurationError: the connection is an async one, or none this adapter understands.
    """
    outbox = _outbox(wiring, draft)
    wiring.emit("stem_before_publish", envelope=draft.publish.envelope)
    connection = draft.plan.asked.publish_connection
    if outbox is not None:
        outbox.write_sync(connection, [draft.publish.message])
    else:
        wiring.broker.commit_on_sync(connection, [_step(wiring, draft)])
    wiring.emit("stem_after_publish", envelope=draft.publish.envelope, accepted=True)


def _outbox(wiring: Wiring, draft: Draft) -> Outbox | None:
    """The outbox where it is needed, None where the broker does it itself."""
    if wiring.broker.capabilities.transactional_publish:
        return None
    if wiring.outbox is None:
        raise UnsupportedCapability(
            f"Task {draft.publish.envelope.name!r} has publish_connection, and {type(wiring.broker).__name__} cannot "
            "publish in a caller's transaction (capability 'transactional_publish'); use a broker that can, such as "
            "postgresql://, or Stem(outbox=URL)"
        )
    return wiring.outbox


def _step(wiring: Wiring, draft: Draft) -> Step:
    # Only one store can write the row in the same transaction; a row without its message would be a lie.
    if wiring.committer is None:
        return Step(publishes=(draft.publish.message,))
    return draft.publish.step()
