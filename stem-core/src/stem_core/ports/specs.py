"""What a plugin hands to Stem: descriptions, never connections.

A spec is plain data, readable without importing a driver. ``open`` makes the adapter and does no
I/O either: connecting is the adapter's own ``async open()``. ``contract`` has no default, so that a
plugin states the contract it was written for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from stem_core.clock import Clock, SystemClock
from stem_core.ports.backend import Backend
from stem_core.ports.broker import Broker
from stem_core.ports.capabilities import BackendCapabilities, BrokerCapabilities
from stem_core.ports.encoder import PayloadEncoder
from stem_core.ports.signer import PayloadSigner

__all__ = ["AdapterOptions", "BackendSpec", "BrokerSpec", "Doctor", "EncoderSpec", "Finding", "SignerSpec"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterOptions:
    """What the core tells an adapter when it makes one. The URL's query holds the adapter's own.

    ``namespace`` keeps one application's data apart; ``clock`` is for adapters without a server's; ``once_ttl`` is how
    many seconds the id of a finished ``once`` message is remembered; ``connect_timeout`` the most seconds to connect.
    """

    namespace: str = "stem"
    clock: Clock = SystemClock()
    """Only an adapter without a server's clock uses it."""
    once_ttl: float = 3600.0
    """Seconds a ``once`` id is remembered after its message was acked, withdrawn or purged."""
    connect_timeout: float = 10.0
    """Most seconds to reach the store before the call fails with :exc:`AdapterError`."""


#: One line of ``stem doctor``: section, key, value, and None or a warning that says what to do.
Finding = tuple[str, str, str, str | None]
#: Looks at the store behind a URL, connecting to it; raises AdapterError when it is out of reach.
Doctor = Callable[[str, AdapterOptions], Awaitable[Sequence[Finding]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerSpec:
    """A broker: ``open(url, options)`` for a URL with one of ``schemes``.

    ``open`` makes the adapter without I/O. ``name`` and ``summary`` (one line) are for people, ``contract`` is the
    number of the contract it was written for, ``capabilities`` what it promises, ``doctor`` what ``stem doctor`` asks.
    """

    name: str
    schemes: tuple[str, ...]
    contract: int
    capabilities: BrokerCapabilities
    summary: str
    open: Callable[[str, AdapterOptions], Broker]
    doctor: Doctor | None = None
    """What ``stem doctor URL`` says of the store; asked of the broker's spec first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendSpec:
    """A result backend: ``open(url, options)`` for a URL with one of ``schemes``.

    ``open`` makes the adapter without I/O. ``name`` and ``summary`` (one line) are for people, ``contract`` is the
    number of the contract it was written for, ``capabilities`` what it promises, ``doctor`` what ``stem doctor`` asks
    of a store that has no broker.
    """

    name: str
    schemes: tuple[str, ...]
    contract: int
    capabilities: BackendCapabilities
    summary: str
    open: Callable[[str, AdapterOptions], Backend]
    doctor: Doctor | None = None
    """As the broker's, for a store that only a backend is for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSpec:
    """A payload encoder. ``value``: value to bytes, ``bytes``: bytes to bytes.

    With ``context`` it is a :class:`ContextPayloadEncoder`. ``open(environment)``
    makes it; keys and the like come from the environment. ``unavailable``, when set, says which extra
    must be installed before ``open`` can succeed. ``id`` is what travels with the bytes and names it in a chain
    (``cbor+zstd``), ``summary`` (one line) is for people, ``contract`` the number of the contract it was written for.
    """

    id: str
    kind: Literal["value", "bytes"]
    contract: int
    summary: str
    open: Callable[[Mapping[str, str]], PayloadEncoder]
    context: bool = False
    unavailable: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SignerSpec:
    """A signer. ``open(environment)`` reads its keys; it raises ConfigurationError when they are missing.

    ``id`` is the algorithm that travels with a signature, ``summary`` (one line) is for people, ``contract`` the number
    of the contract it was written for. ``unavailable``, when set, says which extra must be installed first.
    """

    id: str
    contract: int
    summary: str
    open: Callable[[Mapping[str, str]], PayloadSigner]
    unavailable: str | None = None
