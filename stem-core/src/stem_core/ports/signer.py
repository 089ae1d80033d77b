"""What a signer must do, and the exact bytes it signs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

__all__ = [
    "KeyScope",
    "PayloadSigner",
    "SignatureBlock",
    "pre_authentication_encoding",
    "pre_authentication_prefix",
]


class SignatureBlock(msgspec.Struct, frozen=True):
    """One signature as it travels: algorithm and key id are ASCII, at most 64 bytes each."""

    algorithm: str
    key_id: str
    signature: bytes


class KeyScope(msgspec.Struct, frozen=True):
    """What the key that verified may speak for: exact names, or prefixes written ``mail.*``. None is everything."""

    key_id: str
    queues: frozenset[str] | None = None
    tasks: frozenset[str] | None = None

    def allows(self, queue: str, task: str) -> bool:
        """Whether this key may speak for ``task`` on ``queue``: both must be in scope."""
        return _matches(self.queues, queue) and _matches(self.tasks, task)


def _matches(allowed: frozenset[str] | None, name: str) -> bool:
    if allowed is None or name in allowed:
        return True
    return any(each.endswith("*") and name.startswith(each[:-1]) for each in allowed)


class PayloadSigner(Protocol):
    """Signs sealed bytes and says who signed them. Pure, quick, safe to share between threads.

    What is signed is :func:`pre_authentication_encoding`, never the payload alone, so that neither
    algorithm, key, purpose nor namespace can be exchanged. The algorithm belongs to the key.
    """

    def sign(
        self, purpose: str, namespace: str, payload: bytes, *, queue: str, task: str
    ) -> Sequence[SignatureBlock]:
        """One or two signatures over ``payload``.

        :raises ConfigurationError: there is no signing key here (verify only), or the active key may not
            speak for this queue or task.
        """
        ...

    def verify(
        self, purpose: str, namespace: str, payload: bytes, signatures: Sequence[SignatureBlock]
    ) -> KeyScope:
        """The scope of a trusted key whose signature verifies.

        :raises SignatureInvalid: no signature is by a trusted key and verifies.
        """
        ...


def pre_authentication_encoding(
    purpose: str, algorithm: str, key_id: str, namespace: str, payload: bytes
) -> bytes:
    """The bytes a signature covers: a count, then each part after its length, all 64-bit little-endian.

    Lengths before contents leave no two inputs with one encoding; the idea is DSSE's (Dead Simple Signing
    Envelope, in-toto), the parts are Stem's.
    """
    return pre_authentication_prefix(purpose, algorithm, key_id, namespace) + _length(payload) + payload


def pre_authentication_prefix(purpose: str, algorithm: str, key_id: str, namespace: str) -> bytes:
    """All of it but the payload and its length: the same for every payload of one key, so worth keeping."""
    parts = (purpose.encode(), algorithm.encode(), key_id.encode(), namespace.encode())
    out = [(len(parts) + 1).to_bytes(8, "little")]
    for part in parts:
        out += (_length(part), part)
    return b"".join(out)


def _length(part: bytes) -> bytes:
    return len(part).to_bytes(8, "little")
