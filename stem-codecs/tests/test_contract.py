"""The encoders of this package against the contract."""

from __future__ import annotations

import base64
from typing import ClassVar

import hypothesis.strategies as st

from stem_codecs import plugin
from stem_core.contracts import EncoderContract

NOT_SURROGATES = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
DOMAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | NOT_SURROGATES
    | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(NOT_SURROGATES, inner, max_size=5),
    max_leaves=20,
)
OUTSIDE = (object(), lambda: None, float("nan"), float("inf"), 2**64, "\ud800", {1: 2, "1": 3}, complex(1))


class Codec(EncoderContract):
    seconds: ClassVar[float] = 1.0
    memory: ClassVar[int] = 16 * 1024 * 1024


class TestCbor(Codec):
    spec = plugin.CBOR
    domain = DOMAIN
    outside = OUTSIDE


class TestMsgpack(Codec):
    spec = plugin.MSGPACK
    domain = DOMAIN
    outside = OUTSIDE


class TestGzip(Codec):
    spec = plugin.GZIP


class TestZstd(Codec):
    spec = plugin.ZSTD


class TestLz4(Codec):
    spec = plugin.LZ4


class TestAesGcm(Codec):
    spec = plugin.AES_GCM
    environment: ClassVar[dict[str, str]] = {
        "STEM_ENCRYPTION_KEYS": "k1:" + base64.b64encode(b"K" * 32).decode()
    }
    deterministic = False
