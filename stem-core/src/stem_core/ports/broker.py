"""What a broker must be able to do. Laws 1 to 19 of the adapter contract say it in full."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from stem_core.envelope import DeadPage, Delivery, Message, Receipt, Settlement
from stem_core.ports.capabilities import BrokerCapabilities

if TYPE_CHECKING:  # join looks at its sibling ports; they do not look back
    from stem_core.ports.backend import Backend
    from stem_core.ports.committer import Committer, Step

__all__ = ["Broker", "QueueStats"]


class QueueStats(msgspec.Struct, frozen=True, kw_only=True):
    """Messages of one queue, exact at rest; ``oldest_ready_age`` in seconds, None when none is ready."""

    ready: int = 0
    scheduled: int = 0
    leased: int = 0
    dead: int = 0
    oldest_ready_age: float | None = None


class Broker(Protocol):
    """Moves sealed messages from producers to workers, at least once.

    Used from the event loop that opened it. Promises no order unless ``fifo``, and never exactly-once
    delivery: an ended lease means a second delivery. A lost connection raises a ``StemError`` and the
    adapter works again once the store is back. A method that belongs to an undeclared capability raises
    :exc:`UnsupportedCapability`. Any use after ``close`` is a :exc:`StemError`.
    """

    capabilities: BrokerCapabilities

    async def open(self) -> None:
        """Connect and prepare the store.

        :raises AdapterError: unreachable within ``AdapterOptions.connect_timeout``, or refused.
        """
        ...

    async def close(self) -> None:
        """Release everything; calling it again is fine."""
        ...

    async def publish(self, messages: Sequence[Message]) -> Sequence[bool]:
        """Store all of them; False for a ``once`` id that is already known (nothing was added).

        :raises PayloadTooLarge: one is over ``max_size``; nothing was stored.
        :raises PublishError: ``outcome="refused"`` promises that nothing was stored; any other exception leaves
            any subset stored.
        """
        ...

    async def receive(
        self, queues: Sequence[str], *, limit: int, lease: float, wait: float
    ) -> Sequence[Delivery]:
        """At most ``limit`` deliveries, leased for ``lease`` seconds from now by the store's clock.

        Returns as soon as there is anything, else an empty sequence after ``wait`` seconds; ``wait=0`` asks once.
        Cancelling it leaks no lease beyond its deadline.
        """
        ...

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[bool]:
        """Whether each receipt was still good; False changed nothing (law 5)."""
        ...

    async def extend(self, receipts: Sequence[Receipt], lease: float) -> Sequence[bool]:
        """Move each deadline to now + ``lease``; False for a lost lease, which stays lost."""
        ...

    async def stats(self, queue: str) -> QueueStats:
        """Counts of one queue. A dead letter counts until it is replayed or purged."""
        ...

    async def purge(self, queue: str) -> int:
        """Remove every ready and scheduled message; leased ones finish. Returns how many."""
        ...

    def join(self, backend: Backend) -> Committer | None:
        """A committer when ``backend`` is in the same store, else None. Asked once, when both are open."""
        ...

    # dead_letters

    async def dead_list(
        self,
        queue: str,
        *,
        ids: Sequence[str] | None = None,
        reason: str | None = None,
        before: datetime | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> DeadPage:
        """Dead letters that match every filter given, oldest first; ``before`` bounds ``dead_at``."""
        ...

    async def dead_replay(
        self,
        queue: str,
        *,
        ids: Sequence[str] | None = None,
        reason: str | None = None,
        before: datetime | None = None,
        limit: int | None = None,
        dry_run: bool = False,
    ) -> Sequence[tuple[str, int]]:
        """Make matching dead letters ready again: same bytes, generation + 1, attempt and deliveries 0.

        Returns (id, new generation) of each. ``dry_run`` changes nothing.
        """
        ...

    async def dead_purge(
        self,
        queue: str,
        *,
        ids: Sequence[str] | None = None,
        reason: str | None = None,
        before: datetime | None = None,
        limit: int | None = None,
        keep: int = 0,
    ) -> int:
        """Remove matching dead letters, oldest first, but keep the newest ``keep`` of them. Returns how many."""
        ...

    # broadcast

    async def broadcast(self, channel: str, data: bytes) -> None:
        """Send ``data`` to every current subscriber of ``channel``; nobody else ever gets it."""
        ...

    def subscribe(self, channels: Sequence[str]) -> AsyncIterator[tuple[str, bytes]]:
        """(channel, data) of what is broadcast from the first ``__anext__`` on, until closed (``aclose``)."""
        ...

    # withdraw

    async def withdraw(self, ids: Sequence[str]) -> Sequence[bool]:
        """Remove ready and scheduled messages by id, in any queue; False for each that is not, or is leased."""
        ...

    # transactional_publish

    async def commit_on(self, conn: Any, steps: Sequence[Step]) -> Sequence[bool]:
        """Do ``steps`` in the caller's open transaction on async connection ``conn``; never commits it.

        :raises ConfigurationError: ``conn`` is not an async connection this adapter understands.
        """
        ...

    def commit_on_sync(self, conn: Any, steps: Sequence[Step]) -> Sequence[bool]:
        """The same on a sync connection, on the caller's thread."""
        ...
