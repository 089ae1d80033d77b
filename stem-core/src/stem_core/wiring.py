"""What a producer or worker is wired to: adapters, encoders, signer, and the hooks that watch.

A :class:`Wiring` belongs to the event loop that opened it; :meth:`Wiring.copy` makes one with adapters of its
own for another loop or process.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from stem_core import sealing
from stem_core.clock import Clock, SystemClock
from stem_core.encoding import TaskPayloadEncoderRegistry
from stem_core.envelope import Envelope
from stem_core.plugins import Catalogue
from stem_core.ports.backend import Backend
from stem_core.ports.broker import Broker
from stem_core.ports.committer import Committer
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
    outbox: Any = None
    clock: Clock = field(default_factory=SystemClock)
    make_broker: Callable[[], Broker] | None = None
    make_backend: Callable[[], Backend] | None = None
    committer: Committer | None = field(default=None, init=False)
    """Set by :meth:`open` when broker and backend are in one store."""
    is_open: bool = field(default=False, init=False)

    async def open(self) -> None:
        """Connect both adapters; does nothing when they are.

        :raises AdapterError: one is out of reach; neither is left open.
        """
        if self.is_open:
            return
        await self.broker.open()
        try:
            if self.backend is not None:
                await self.backend.open()
                self.committer = self.broker.join(self.backend)
        except BaseException:
            await self.broker.close()
            raise
        self.is_open = True

    async def close(self) -> None:
        """Release both adapters."""
        if not self.is_open:
            return
        self.is_open = False
        self.committer = None
        try:
            await self.broker.close()
        finally:
            if self.backend is not None:
                await self.backend.close()

    def copy(self) -> Wiring:
        """The same wiring, not open, with adapters of its own."""
        return replace(
            self,
            broker=self.make_broker() if self.make_broker else self.broker,
            backend=self.make_backend() if self.make_backend else self.backend,
        )

    def seal(self, envelope: Envelope) -> bytes:
        """The sealed bytes of ``envelope``, signed when there is a signer.

        :raises PayloadTooLarge: more than ``max_payload`` bytes.
        """
        return sealing.seal(envelope, namespace=self.namespace, signer=self.signer, limit=self.max_payload)

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
