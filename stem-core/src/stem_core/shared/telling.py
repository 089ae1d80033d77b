"""Telling workers by broadcast. What must hold is in the state; a broadcast only makes them look at once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from stem_core.envelope import new_id
from stem_core.shared import commands
from stem_core.shared.commands import CHANNEL, Command, Kind
from stem_core.wiring import Wiring

__all__ = ["command", "sealed", "tell"]


def command(kind: Kind, workers: Sequence[str] = (), **arguments: Any) -> Command:
    """A new command, sent now, to all workers or to these; one may be named alone."""
    workers = (workers,) if isinstance(workers, str) else workers
    return Command(id=new_id(), kind=kind, sent_at=time.time(), workers=tuple(workers), arguments=arguments)


def sealed(wiring: Wiring, value: Command) -> bytes:
    """The command's bytes, signed when there is a signer."""
    return commands.seal(value, namespace=wiring.namespace, signer=wiring.signer)


async def tell(wiring: Wiring, value: Command) -> None:
    """Broadcast a command, where the broker can."""
    if wiring.broker.capabilities.broadcast:
        await wiring.broker.broadcast(CHANNEL, sealed(wiring, value))
