"""What a producer or worker is wired to: adapters, encoders, signer, and the hooks that watch.

A :class:`Wiring` belongs to the event loop that opened it; :meth:`Wiring.copy` makes one with adapters of its
own for another loop or process.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from stem_core import sealing
from stem_core.clock import Clock, SystemClock
from stem_core.encoding import TaskPayloadEncoderRegistry
from stem_core.envelope import Envelope
from stem_core.plugins import Catalogue
from stem_core.ports.backend import Backend
from stem_core.ports.broker import Broker
from stem_core.ports.committer import Committer, Starter
from stem_core.ports.outbox import Outbox
from stem_core.ports.signer import PayloadSigner

__all__ = ["Wiring"]

_log = logging.getLogger("stem")


@dataclass(eq=False, slots=True)
class Wiring:
    """Adapters and what surrounds them. ``make_*`` make fresh adapters; without them a copy shares these."""

    broker: Broker
    backend: Backend | None
    encoders: TaskPayloadEncoderRegistry
    signer: PayloadSigner | None = None
    namespace: str = "stem"
    catalogue: Catalogue = field(default_factory=Catalogue)
    max_payload: int = sealing.MAX_SEALED
    outbox: Outbox | None = None
    clock: Clock = field(default_factory=SystemClock)
    make_broker: Callable[[], Broker] | None = None
    make_backend: Callable[[], Backend] | None = None
    make_outbox: Callable[[], Outbox] | None = None
    committer: Committer | None = field(default=None, init=False)
    """Set by :meth:`open` when broker and backend are in one store."""
    starter: Starter | None = field(default=None, init=False)
    """The committer, if it can start steps without waiting."""
    is_open: bool = field(default=False, init=False)

    async def open(self) -> None:
        """Connect the adapters; does nothing when they are.

        :raises AdapterError: one is out of reach; none is left open.
        """
        if self.is_open:
            return
        async with AsyncExitStack() as opened:
            for adapter in self._adapters():
                await adapter.open()
                opened.push_async_callback(adapter.close)
            self.committer = self.broker.join(self.backend) if self.backend is not None else None
            self.starter = self.committer if isinstance(self.committer, Starter) else None
            opened.pop_all()
        self.is_open = True

    async def close(self) -> None:
        """Release the adapters."""
        if not self.is_open:
            return
        self.is_open = False
        self.committer = self.starter = None
        async with AsyncExitStack() as closing:
            for adapter in self._adapters():
                closing.push_async_callback(adapter.close)

    def encoding_with(self, encoders: TaskPayloadEncoderRegistry) -> Wiring:
        """The same adapters, open as they are, with other encoders. Only the original is to be closed."""
        changed = copy.copy(self)
        changed.encoders = encoders.completed(self.catalogue)
        return changed

    def copy(self) -> Wiring:
        """The same wiring, not open, with adapters of its own."""
        return replace(
            self,
            broker=self.make_broker() if self.make_broker else self.broker,
            backend=self.make_backend() if self.make_backend else self.backend,
            outbox=self.make_outbox() if self.make_outbox else self.outbox,
        )

    def _adapters(self) -> list[Broker | Backend | Outbox]:
        return [each for each in (self.broker, self.backend, self.outbox) if each is not None]

    def seal(self, envelope: Envelope, inner: bytes | None = None) -> bytes:
        """The sealed bytes of ``envelope``, signed when there is a signer. ``inner``: see :func:`sealing.seal`.

        :raises PayloadTooLarge: more than ``max_payload`` bytes.
        """
        return sealing.seal(
            envelope, namespace=self.namespace, signer=self.signer, limit=self.max_payload, inner=inner
        )

    def unseal(self, sealed: bytes) -> Envelope:
        """The envelope in ``sealed``, verified when there is a signer.

        :raises SignatureInvalid: it is not from who it claims.
        :raises DecodeError: it is no envelope.
        """
        return sealing.open_sealed(
            sealed, namespace=self.namespace, signer=self.signer, limit=self.max_payload
        )

    def hooks(self, name: str) -> tuple[Callable[..., Any], ...]:
        """The implementations of one hook."""
        return self.catalogue.hooks.get(name, ())

    def emit(self, hook: str, **arguments: Any) -> list[Any]:
        """Call every implementation of ``hook``; one that raises is logged and changes nothing."""
        answers = []
        for implementation in self.catalogue.hooks.get(hook, ()):
            try:
                answers.append(implementation(**arguments))
            except Exception:  # noqa: BLE001 (a plugin changes nothing, whatever it raises)
                _log.exception("A plugin's %s raised; it changes nothing", hook)
        return answers
