"""Payload encoders for Stem: CBOR and MessagePack, gzip, zstd and lz4, AES-256-GCM."""
