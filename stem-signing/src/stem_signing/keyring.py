"""Keys and the ring that holds them: one signs, all verify. Values; nothing here reads the environment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

from stem_core.errors import ConfigurationError, SignatureInvalid
from stem_core.keylist import check_key_id
from stem_core.ports.signer import KeyScope, SignatureBlock

__all__ = ["ALGORITHMS", "ED25519", "HMAC_SHA256", "Algorithm", "Key", "KeyRing", "refused"]

Algorithm = Literal["hmac-sha256", "ed25519"]
HMAC_SHA256: Final = "hmac-sha256"
ED25519: Final = "ed25519"
ALGORITHMS: Final[tuple[Algorithm, ...]] = (HMAC_SHA256, ED25519)

#: HMAC secrets shorter than the hash's output weaken it (RFC 2104, section 3).
LEAST_SECRET: Final = 32
RAW_ED25519: Final = 32
_ASYMMETRIC: Final = (
    b"-----BEGIN",
    b"ssh-",
    b"ecdsa-",
    b"sk-ssh-",
    b"sk-ecdsa-",
    bytes.fromhex("302a300506032b6570"),  # DER of an Ed25519 public key (RFC 8410)
    bytes.fromhex("302e020100300506032b6570"),  # and of a private one
)
_RSA_OID: Final = bytes.fromhex("06092a864886f70d0101")


@dataclass(frozen=True, slots=True)
class Key:
    """One key. The algorithm belongs to it: no message chooses another.

    ``material`` is the HMAC secret, or the raw 32 bytes of an Ed25519 private (``sign``) or public (``verify``)
    key. HMAC keys are always ``sign``: whoever can verify can sign.
    """

    id: str
    algorithm: Algorithm
    material: bytes = field(repr=False)
    use: Literal["sign", "verify"] = "sign"
    queues: frozenset[str] | None = None
    tasks: frozenset[str] | None = None

    def __post_init__(self) -> None:
        check_key_id(self.id)
        if self.algorithm == HMAC_SHA256:
            _check_secret(self)
        elif len(self.material) != RAW_ED25519:
            raise ConfigurationError(
                f"Ed25519 key {self.id!r} has {len(self.material)} bytes; a raw key has {RAW_ED25519} (not PEM, not DER)."
            )

    @property
    def scope(self) -> KeyScope:
        """What this key may speak for."""
        return KeyScope(self.id, self.queues, self.tasks)


class KeyRing:
    """The keys of one algorithm: ``signing`` first the active one, then a co-signing one; ``verifying`` by id."""

    __slots__ = ("_limited", "algorithm", "scopes", "signing", "verifying")

    def __init__(self, algorithm: Algorithm, verifying: Iterable[Key], signing: Iterable[Key] = ()) -> None:
        self.algorithm = algorithm
        self.verifying: Mapping[str, Key] = MappingProxyType({each.id: each for each in verifying})
        self.signing = tuple(signing)
        self.scopes: Mapping[str, KeyScope] = {id: each.scope for id, each in self.verifying.items()}
        self._limited = [each for each in self.signing if each.queues is not None or each.tasks is not None]
        for key in (*self.verifying.values(), *self.signing):
            if key.algorithm != algorithm:
                raise ConfigurationError(
                    f"Key {key.id!r} is for {key.algorithm}, and this ring is for {algorithm}; no key serves two algorithms."
                )

    def __repr__(self) -> str:
        signing = ", ".join(each.id for each in self.signing) or "none"
        return f"<KeyRing {self.algorithm} signing={signing} verifying={', '.join(self.verifying)}>"

    def check_may_sign(self, queue: str, task: str) -> None:
        """Nothing, when every signing key may speak for ``task`` on ``queue``.

        :raises ConfigurationError: there is no signing key, or one may not.
        """
        if not self.signing:
            raise ConfigurationError(
                "This process can verify but not sign: it has public keys only. Set STEM_SIGNING_PRIVATE_KEYS and "
                "STEM_SIGNING_ACTIVE_KEY where messages are produced."
            )
        for key in self._limited:
            if not key.scope.allows(queue, task):
                raise ConfigurationError(
                    f"Signing key {key.id!r} may not speak for task {task!r} on queue {queue!r}; see "
                    "STEM_SIGNING_KEY_SCOPES, or sign with another key (STEM_SIGNING_ACTIVE_KEY)."
                )

    def trusted(self, block: SignatureBlock) -> Key | None:
        """The key a signature block names, if it is one of ours and made for the block's algorithm."""
        key = self.verifying.get(block.key_id)
        return key if key is not None and block.algorithm == key.algorithm else None


def refused(ring: KeyRing, signatures: Iterable[SignatureBlock]) -> SignatureInvalid:
    """The error for signatures none of which is trusted and verifies; names keys, never their bytes."""
    found = []
    for block in signatures:
        key = ring.verifying.get(block.key_id)
        if key is None:
            found.append(f"key {block.key_id!r} is not known here")
        elif block.algorithm != key.algorithm:
            found.append(f"key {block.key_id!r} is for {key.algorithm}, not {block.algorithm!r}")
        else:
            found.append(f"the signature by key {block.key_id!r} does not match")
    return SignatureInvalid(f"No trusted signature: {'; '.join(found) or 'there is none'}.")


def _check_secret(key: Key) -> None:
    if key.material.lstrip().startswith(_ASYMMETRIC) or _RSA_OID in key.material[:40]:
        raise ConfigurationError(
            f"HMAC key {key.id!r} is an asymmetric key file, which others may know; an HMAC secret is random bytes: "
            "stem keys generate"
        )
    if len(key.material) < LEAST_SECRET:
        raise ConfigurationError(
            f"HMAC key {key.id!r} has {len(key.material)} bytes; at least {LEAST_SECRET} are needed: stem keys generate"
        )
