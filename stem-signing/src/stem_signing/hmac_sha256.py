"""HMAC-SHA256 (RFC 2104, FIPS 198-1), from the standard library: one secret signs and verifies."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence

from stem_core.ports.signer import KeyScope, SignatureBlock, pre_authentication_prefix
from stem_signing.environment import read_keyring
from stem_signing.keyring import HMAC_SHA256, Key, KeyRing, refused

__all__ = ["HmacSha256Signer", "open_hmac_sha256"]


def open_hmac_sha256(environment: Mapping[str, str]) -> HmacSha256Signer:
    """The signer with the keys of ``environment``.

    :raises ConfigurationError: they are missing or malformed.
    """
    return HmacSha256Signer(read_keyring(environment, HMAC_SHA256))


class HmacSha256Signer:
    """Whoever can verify can sign: use it where producers and workers trust each other."""

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring
        # Key, purpose and namespace come first in what is hashed: hashed once, copied for each message. They are
        # a process's own, never a message's, so there are a handful.
        self._begun: dict[tuple[str, str, str], hmac.HMAC] = {}

    def __repr__(self) -> str:
        return f"<HmacSha256Signer {self._ring!r}>"

    def sign(
        self, purpose: str, namespace: str, payload: bytes, *, queue: str, task: str
    ) -> Sequence[SignatureBlock]:
        """One signature by the active key, and one by the co-signing key if there is one."""
        self._ring.check_may_sign(queue, task)
        return [
            SignatureBlock(HMAC_SHA256, key.id, self._digest(key, purpose, namespace, payload))
            for key in self._ring.signing
        ]

    def verify(
        self, purpose: str, namespace: str, payload: bytes, signatures: Sequence[SignatureBlock]
    ) -> KeyScope:
        """The scope of the first key whose signature verifies."""
        for block in signatures:
            key = self._ring.trusted(block)
            if key is not None and hmac.compare_digest(
                self._digest(key, purpose, namespace, payload), block.signature
            ):
                return self._ring.scopes[key.id]
        raise refused(self._ring, signatures)

    def _digest(self, key: Key, purpose: str, namespace: str, payload: bytes) -> bytes:
        begun = self._begun.get((key.id, purpose, namespace))
        if begun is None:
            prefix = pre_authentication_prefix(purpose, HMAC_SHA256, key.id, namespace)
            begun = self._begun[key.id, purpose, namespace] = hmac.new(key.material, prefix, "sha256")
        whole = begun.copy()
        whole.update(len(payload).to_bytes(8, "little") + payload)
        return whole.digest()
