"""Keys, signers and encoders for these tests. The keys are known, so that leaks of them can be searched for."""

from __future__ import annotations

import base64
import hashlib
from typing import Final

from stem_core.encoding import TaskPayloadEncoderRegistry
from stem_core.plugins import discover
from stem_core.ports.signer import PayloadSigner
from stem_signing.plugin import ED25519, HMAC_SHA256

ALGORITHMS: Final = ("hmac-sha256", "ed25519")
CHAINS: Final = (
    "json",
    "cbor",
    "msgpack",
    "json+gzip",
    "cbor+zstd",
    "msgpack+lz4",
    "json+aes-gcm",
    "cbor+zstd+aes-gcm",
)


def material(name: str) -> bytes:
    """32 bytes that stand for a secret."""
    return hashlib.sha256(f"stem security tests: {name}".encode()).digest()


def entries(*names: str, kind: str = "") -> str:
    """The keys called ``names`` as a variable holds them."""
    return ",".join(f"{name}:{base64.b64encode(material(kind + name)).decode()}" for name in names)


def environment(algorithm: str, *names: str, active: str | None = None, scopes: str = "") -> dict[str, str]:
    """Variables of a ring with the keys called ``names``."""
    variable = "STEM_SIGNING_KEYS" if algorithm == "hmac-sha256" else "STEM_SIGNING_PRIVATE_KEYS"
    found = {
        "STEM_SIGNING_ALGORITHM": algorithm,
        variable: entries(*names, kind=algorithm),
        "STEM_SIGNING_ACTIVE_KEY": active or names[0],
    }
    return found | ({"STEM_SIGNING_KEY_SCOPES": scopes} if scopes else {})


def signer(algorithm: str, *names: str, active: str | None = None, scopes: str = "") -> PayloadSigner:
    """A signer with the keys called ``names``."""
    spec = HMAC_SHA256 if algorithm == "hmac-sha256" else ED25519
    return spec.open(environment(algorithm, *(names or ("a",)), active=active, scopes=scopes))


def encryption(*names: str, active: str | None = None) -> dict[str, str]:
    """Variables of an encryption ring."""
    return {
        "STEM_ENCRYPTION_KEYS": entries(*names, kind="encryption"),
        "STEM_ENCRYPTION_ACTIVE_KEY": active or names[0],
    }


def registry(*names: str, active: str | None = None, default: str = "json") -> TaskPayloadEncoderRegistry:
    """Every installed encoder, encrypting with the keys called ``names``."""
    variables = encryption(*(names or ("a",)), active=active)
    return TaskPayloadEncoderRegistry(
        default, default, catalogue=discover(environment={}), environment=variables
    )


def public(name: str) -> bytes:
    """The raw public key of the Ed25519 key called ``name``."""
    from stem_signing.ed25519 import public_of

    return public_of(material("ed25519" + name))


def public_entries(*names: str) -> str:
    """Public keys as a variable holds them."""
    return ",".join(f"{name}:{base64.b64encode(public(name)).decode()}" for name in names)
