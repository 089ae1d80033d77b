"""The signers of this package against the contract."""

from __future__ import annotations

from stem_core.contracts import SignerContract
from stem_signing import keys, plugin

HMAC = keys.generate("hmac-sha256", "first")
HMAC_STAGES = keys.rotate(HMAC, "second")
PAIR = keys.generate("ed25519", "first")
PAIR_STAGES = keys.rotate(PAIR, "second")


class TestHmacSha256(SignerContract):
    spec = plugin.HMAC_SHA256
    environment = HMAC
    rotated = HMAC_STAGES[1].variables
    retired = HMAC_STAGES[2].variables


class TestEd25519(SignerContract):
    spec = plugin.ED25519
    environment = PAIR
    rotated = PAIR_STAGES[1].variables
    retired = PAIR_STAGES[2].variables
    verify_only = {"STEM_SIGNING_PUBLIC_KEYS": PAIR["STEM_SIGNING_PUBLIC_KEYS"]}  # noqa: RUF012 (never changed)
