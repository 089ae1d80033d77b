"""Payload signers for Stem: HMAC-SHA256 and Ed25519, with a key ring that rotates."""
