"""What an adapter may choose to do. Every flag is off by default: a promise is opt-in.

The producer plans with these, the documentation is rendered from them, and the contract suite
tests what is declared and the refusal of what is not.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BackendCapabilities", "BrokerCapabilities"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerCapabilities:
    """What a broker can do beyond leases, fencing, extension, ``Retry`` and ``Release``.

    Off unless declared: ``delay`` (and ``max_delay``, seconds), ``priority_levels`` (1 is none), ``global_priority``,
    ``fifo``, ``dead_letters``, ``broadcast``, ``withdraw``, ``transactional_publish``, ``routing``, ``durable``,
    ``multi_process``, ``once_ttl``. Limits: ``max_size`` (bytes), ``resolution`` (seconds late, never early).
    """

    delay: bool = False
    """``not_before`` and ``delay`` at publish are honoured (law 8)."""
    max_delay: float | None = None
    """The longest delay in seconds, of publish, ``Retry`` and ``Release``; None is unlimited."""
    priority_levels: int = 1
    """How many levels are told apart; 1 means none (law 9)."""
    global_priority: bool = False
    """Levels order deliveries across all queues of one receive (law 9)."""
    fifo: bool = False
    """First deliveries of one level of one queue come in publish order (law 9)."""
    dead_letters: bool = False
    """``DeadLetter`` keeps the message; ``dead_list``, ``dead_replay``, ``dead_purge`` (law 12).
    Without it ``DeadLetter`` forgets the message, and the core has it logged and recorded."""
    broadcast: bool = False
    """``broadcast`` and ``subscribe`` (law 18)."""
    withdraw: bool = False
    """``withdraw`` (law 17)."""
    transactional_publish: bool = False
    """``commit_on`` and ``commit_on_sync`` (law 19)."""
    routing: bool = False
    """``Message.route`` is used and arrives unchanged (law 19)."""
    durable: bool = False
    """What was acknowledged survives a restart of the store (law 19)."""
    multi_process: bool = False
    """Several processes may share it."""
    max_size: int | None = None
    """Most sealed bytes of one message; None is unlimited (law 3)."""
    resolution: float = 0.001
    """Seconds by which leases and delays may be late (never early)."""
    once_ttl: bool = False
    """``AdapterOptions.once_ttl`` is honoured; without it an hour holds (law 2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendCapabilities:
    """What a backend can do beyond recording, fetching and waiting.

    Off unless declared: ``push_wait`` (a wait is woken, without polling), ``ttl`` (statuses expire), ``groups``
    (chords and chains), ``state`` (compare-and-set values: unique locks, revocations, schedules), ``limiter``
    (rate limits), ``listing`` (query by state, name, queue, time), ``durable`` and ``multi_process``.
    """

    push_wait: bool = False
    """``wait`` is woken by the store, without polling (law 22)."""
    ttl: bool = False
    """Statuses expire (law 23)."""
    groups: bool = False
    """``group_create``, ``group_add``, ``group_close``, ``group_get`` (law 24)."""
    state: bool = False
    """``state_read``, ``state_write``, ``state_delete``, ``state_scan`` (law 25)."""
    limiter: bool = False
    """``limit_take`` (law 26)."""
    listing: bool = False
    """``list`` (law 27)."""
    durable: bool = False
    """What was acknowledged survives a restart of the store (law 19)."""
    multi_process: bool = False
    """Several processes may share it."""
