"""What a worker counts."""

from __future__ import annotations

import msgspec

__all__ = ["WorkerStats"]


class WorkerStats(msgspec.Struct, kw_only=True):
    """Counts since the worker was made; ``worker.stats`` answers a copy, so a reader sees one moment."""

    received: int = 0
    succeeded: int = 0
    failed: int = 0
    retried: int = 0
    cancelled: int = 0
    dead_lettered: int = 0
    given_back: int = 0
    leases_lost: int = 0
    signature_invalid: int = 0
    already_done: int = 0
    """Settled without a run: their end was recorded before."""
    crashed_children: int = 0
    receive_errors: int = 0
    finish_errors: int = 0
    blocked_loop: int = 0
    """Times the event loop did not turn for seconds; the culprit's stack was logged."""
    seconds: float = 0.0
    """Spent in handlers that returned."""
    running: int = 0
    """In a handler right now."""
    held: int = 0
    """Claimed and not settled right now."""
