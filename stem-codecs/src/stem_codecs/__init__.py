"""Payload encodings, compression and encryption for Stem."""
