"""An outbox: messages written in the caller's transaction, published to another broker once that committed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from stem_core.envelope import Message
from stem_core.ports.broker import Broker
from stem_core.ports.specs import AdapterOptions

__all__ = ["Outbox", "OutboxSpec"]


class Outbox(Protocol):
    """A table in the application's own database. Used from the event loop that opened it, but for ``write_sync``.

    What a transaction wrote is relayed exactly when it commits: at least once, with every message marked ``once``,
    so the broker adds it once as long as a relay that was interrupted is repeated within its ``once_ttl``.
    """

    async def open(self) -> None:
        """Connect and prepare the table.

        :raises AdapterError: unreachable within ``AdapterOptions.connect_timeout``, or refused.
        """
        ...

    async def close(self) -> None:
        """Release everything; calling it again is fine."""
        ...

    async def write(self, conn: Any, messages: Sequence[Message]) -> None:
        """Store ``messages`` in the caller's open transaction on async connection ``conn``; never commits it.

        :raises ConfigurationError: ``conn`` is not an async connection this outbox understands.
        """
        ...

    def write_sync(self, conn: Any, messages: Sequence[Message]) -> None:
        """The same on a sync connection, on the caller's thread."""
        ...

    async def relay(self, broker: Broker, *, limit: int = 100) -> int:
        """Publish at most ``limit`` committed messages, oldest first, and remove them when ``broker`` has them.

        Several relays may run at once. Returns how many were taken out; fewer than ``limit`` means that the outbox
        is empty for now.

        :raises PublishError: the broker did not confirm; the messages stay.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxSpec:
    """An outbox: ``open(url, options)`` for a URL with one of ``schemes``. It makes the object, without I/O."""

    name: str
    schemes: tuple[str, ...]
    contract: int
    summary: str
    open: Callable[[str, AdapterOptions], Outbox]
