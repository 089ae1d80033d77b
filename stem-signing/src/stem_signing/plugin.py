"""What this distribution provides to Stem: two signers. Imports no cryptography until one is opened."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from typing import Final

from stem_core.hookspecs import hookimpl
from stem_core.ports.signer import PayloadSigner
from stem_core.ports.specs import SignerSpec

__all__ = ["ED25519", "HMAC_SHA256", "stem_signers"]


def _open_hmac_sha256(environment: Mapping[str, str]) -> PayloadSigner:
    from stem_signing.hmac_sha256 import open_hmac_sha256

    return open_hmac_sha256(environment)


def _open_ed25519(environment: Mapping[str, str]) -> PayloadSigner:
    from stem_signing.ed25519 import open_ed25519

    return open_ed25519(environment)


HMAC_SHA256: Final = SignerSpec(
    id="hmac-sha256",
    contract=1,
    summary="HMAC-SHA256: one secret signs and verifies (standard library)",
    open=_open_hmac_sha256,
)
ED25519: Final = SignerSpec(
    id="ed25519",
    contract=1,
    summary="Ed25519: a private key signs, public keys verify",
    open=_open_ed25519,
    unavailable=None if find_spec("cryptography") else "pip install 'stem-signing[ed25519]'",
)


@hookimpl
def stem_signers() -> Iterable[SignerSpec]:
    """The signers of this distribution."""
    return (HMAC_SHA256, ED25519)
