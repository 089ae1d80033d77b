"""Ed25519 (RFC 8032), by the ``cryptography`` library: a private key signs, public keys verify."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from stem_core.errors import ConfigurationError
from stem_core.ports.signer import KeyScope, SignatureBlock, pre_authentication_encoding
from stem_signing.environment import PUBLIC_KEYS, read_keyring
from stem_signing.keyring import ED25519, KeyRing, refused

__all__ = ["Ed25519Signer", "open_ed25519", "public_of"]


def open_ed25519(environment: Mapping[str, str]) -> Ed25519Signer:
    """The signer with the keys of ``environment``; with public keys only, it verifies and does not sign.

    :raises ConfigurationError: they are missing or malformed.
    """
    return Ed25519Signer(read_keyring(environment, ED25519))


def public_of(private: bytes) -> bytes:
    """The raw public key of a raw private key (32 bytes each)."""
    return Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


class Ed25519Signer:
    """A worker that holds public keys only cannot forge a message: use it across trust zones."""

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring
        self._private = [(key, Ed25519PrivateKey.from_private_bytes(key.material)) for key in ring.signing]
        self._public = {key.id: _public(key.id, key.material) for key in ring.verifying.values()}

    def __repr__(self) -> str:
        return f"<Ed25519Signer {self._ring!r}>"

    def sign(
        self, purpose: str, namespace: str, payload: bytes, *, queue: str, task: str
    ) -> Sequence[SignatureBlock]:
        """One signature by the active key, and one by the co-signing key if there is one."""
        self._ring.check_may_sign(queue, task)
        blocks = []
        for key, private in self._private:
            covered = pre_authentication_encoding(purpose, ED25519, key.id, namespace, payload)
            blocks.append(SignatureBlock(ED25519, key.id, private.sign(covered)))
        return blocks

    def verify(
        self, purpose: str, namespace: str, payload: bytes, signatures: Sequence[SignatureBlock]
    ) -> KeyScope:
        """The scope of the first key whose signature verifies."""
        for block in signatures:
            key = self._ring.trusted(block)
            if key is None:
                continue
            covered = pre_authentication_encoding(purpose, ED25519, key.id, namespace, payload)
            try:
                self._public[key.id].verify(block.signature, covered)
            except InvalidSignature:
                continue
            return self._ring.scopes[key.id]
        raise refused(self._ring, signatures)


def _public(id: str, material: bytes) -> Ed25519PublicKey:
    try:
        return Ed25519PublicKey.from_public_bytes(material)
    except ValueError:
        raise ConfigurationError(f"{PUBLIC_KEYS}: key {id!r} is not an Ed25519 public key.") from None
