"""What this distribution provides to Stem: six encoders. A format's library is imported when it is first used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from typing import Final

from stem_core.hookspecs import hookimpl
from stem_core.ports.encoder import PayloadEncoder
from stem_core.ports.specs import EncoderSpec

__all__ = ["AES_GCM", "CBOR", "GZIP", "LZ4", "MSGPACK", "ZSTD", "stem_encoders"]


def _cbor(_: Mapping[str, str]) -> PayloadEncoder:
    from stem_codecs.cbor import CborEncoder

    return CborEncoder()


def _msgpack(_: Mapping[str, str]) -> PayloadEncoder:
    from stem_codecs.msgpack import MsgpackEncoder

    return MsgpackEncoder()


def _gzip(_: Mapping[str, str]) -> PayloadEncoder:
    from stem_codecs.gzip import GzipEncoder

    return GzipEncoder()


def _zstd(_: Mapping[str, str]) -> PayloadEncoder:
    from stem_codecs.zstd import ZstdEncoder

    return ZstdEncoder()


def _lz4(_: Mapping[str, str]) -> PayloadEncoder:
    from stem_codecs.lz4 import Lz4Encoder

    return Lz4Encoder()


def _aes_gcm(environment: Mapping[str, str]) -> PayloadEncoder:
    from stem_codecs.aes_gcm import open_aes_gcm

    return open_aes_gcm(environment)


def _missing(module: str, extra: str) -> str | None:
    return None if find_spec(module) else f"pip install 'stem-codecs[{extra}]'"


CBOR: Final = EncoderSpec(
    id="cbor", kind="value", contract=1, summary="CBOR: compact, deterministic, carries bytes.", open=_cbor
)
MSGPACK: Final = EncoderSpec(
    id="msgpack",
    kind="value",
    contract=1,
    summary="MessagePack: compact, quickest, carries bytes.",
    open=_msgpack,
)
GZIP: Final = EncoderSpec(
    id="gzip", kind="bytes", contract=1, summary="gzip compression (standard library).", open=_gzip
)
ZSTD: Final = EncoderSpec(
    id="zstd",
    kind="bytes",
    contract=1,
    summary="Zstandard compression: the best for its speed.",
    open=_zstd,
    unavailable=_missing("zstandard", "zstd"),
)
LZ4: Final = EncoderSpec(
    id="lz4",
    kind="bytes",
    contract=1,
    summary="LZ4 compression: the cheapest.",
    open=_lz4,
    unavailable=_missing("lz4", "lz4"),
)
AES_GCM: Final = EncoderSpec(
    id="aes-gcm",
    kind="bytes",
    contract=1,
    summary="AES-256-GCM encryption, bound to its task; keys from STEM_ENCRYPTION_KEYS.",
    open=_aes_gcm,
    context=True,
    unavailable=_missing("cryptography", "aes-gcm"),
)


@hookimpl
def stem_encoders() -> Iterable[EncoderSpec]:
    """The encoders of this distribution."""
    return (CBOR, MSGPACK, GZIP, ZSTD, LZ4, AES_GCM)
