"""What a signer must do, and the exact bytes it signs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

__all__ = ["KeyScope", "PayloadSigner", "SignatureBlock", "pre_authentication_encoding"]


class SignatureBlock(msgspec.Struct, frozen=True):
    """One signature as it travels: algorithm and key id are ASCII, at most 64 bytes each."""

    algorithm: str
    key_id: str
    signature: bytes


class KeyScope(msgspec.Struct, frozen=True):
    """What the key that verified may speak for. None is everything."""

    key_id: str
    queues: frozenset[str] | None = None
    tasks: frozenset[str] | None = None

    def allows(self, queue: str, task: str) -> bool:
        return (self.queues is None or queue in self.queues) and (self.tasks is None or task in self.tasks)


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
    parts = (purpose.encode(), algorithm.encode(), key_id.encode(), namespace.encode(), payload)
    out = [len(parts).to_bytes(8, "little")]
    for part in parts:
        out.append(len(part).to_bytes(8, "little"))
        out.append(part)
    return b"".join(out)
