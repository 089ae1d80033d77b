"""Payload signers for Stem."""
