"""Each encoder of this package: law 40 on its domain, law 41 on everything else."""

from __future__ import annotations

import base64
import contextlib
import math
import os
import struct
import sys
import zlib
from typing import Any

import cbor2
import lz4.frame
import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from stem_codecs.aes_gcm import AesGcmEncoder, open_aes_gcm
from stem_codecs.bounds import MAX_EXPANDED
from stem_codecs.cbor import CborEncoder
from stem_codecs.gzip import GzipEncoder
from stem_codecs.lz4 import Lz4Encoder
from stem_codecs.msgpack import MsgpackEncoder
from stem_codecs.plugin import stem_encoders
from stem_codecs.zstd import ZstdEncoder
from stem_core.errors import ConfigurationError, DecodeError, EncodeError
from stem_core.plain import MAX_CONTAINERS
from stem_core.ports.encoder import EncodeContext

VALUE_ENCODERS = [CborEncoder(), MsgpackEncoder()]
COMPRESSIONS = [GzipEncoder(), ZstdEncoder(), Lz4Encoder()]

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=30,
)


def same(left: Any, right: Any) -> bool:
    """Equal, of equal types throughout, the sign of zero included."""
    if type(left) is not type(right):
        return False
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, float):
        return bool(left == right) and math.copysign(1, left) == math.copysign(1, right)
    return bool(left == right)


@pytest.mark.parametrize("encoder", VALUE_ENCODERS, ids=lambda each: each.id)
@given(value=PLAIN)
def test_law_40_what_is_decoded_is_what_was_encoded(encoder: Any, value: object) -> None:
    data = encoder.encode(value)
    assert same(encoder.decode(data), value)
    assert encoder.encode(value) == data


@given(value=st.dictionaries(st.text("abé", max_size=3), st.integers(), max_size=8))
def test_cbor_does_not_depend_on_the_order_of_a_dict(value: dict[str, int]) -> None:
    encode = CborEncoder().encode
    small = {key: item % 1000 for key, item in value.items()}
    assert encode(small) == encode(dict(reversed(small.items())))


@pytest.mark.parametrize("encoder", [*VALUE_ENCODERS, *COMPRESSIONS], ids=lambda each: each.id)
@given(data=st.binary(max_size=200))
def test_law_41_any_bytes_are_decoded_or_refused(encoder: Any, data: bytes) -> None:
    with contextlib.suppress(DecodeError):
        value = encoder.decode(data)
        assert same(encoder.decode(encoder.encode(value)), value)


@pytest.mark.parametrize("encoder", VALUE_ENCODERS, ids=lambda each: each.id)
def test_law_41_truncations_and_trailing_bytes(encoder: Any) -> None:
    data = encoder.encode([{"a": [1, 2.5, "text", b"bytes", None, True]}, {}])
    for length in range(len(data)):
        with pytest.raises(DecodeError):
            encoder.decode(data[:length])
    with pytest.raises(DecodeError):
        encoder.decode(data + b"\x00")


@pytest.mark.parametrize("encoder", VALUE_ENCODERS, ids=lambda each: each.id)
@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), 2**64, "\ud800", {1: 2, "1": 3}, object(), [[[...]]]],
    ids=lambda each: type(each).__name__,
)
def test_what_cannot_travel_is_an_encode_error(encoder: Any, value: object) -> None:
    with pytest.raises(EncodeError, match=r"^\$"):
        encoder.encode(value)


@pytest.mark.parametrize("encoder", VALUE_ENCODERS, ids=lambda each: each.id)
def test_too_many_containers_are_refused_on_both_sides(encoder: Any) -> None:
    most: list[Any] = [[] for _ in range(MAX_CONTAINERS - 1)]
    assert encoder.decode(encoder.encode(most)) == most
    with pytest.raises(EncodeError, match="lists and maps"):
        encoder.encode([*most, {}])
    text = "[\u3042\x90" * MAX_CONTAINERS  # bytes that look like containers, inside a text
    assert encoder.decode(encoder.encode(text)) == text
    mixed = [[0x90, 0x80, "\x80" * 30, b"\x90" * 70, 1.5, -(2**40)]] * 10_000
    assert encoder.decode(encoder.encode(mixed)) == mixed


CBOR_TAGS = [
    *range(40),
    43,
    52,
    54,
    100,
    101,
    256,
    258,
    260,
    261,
    1004,
    9999,
    43000,
    55799,
    2**32 - 1,
    2**64 - 1,
]


@pytest.mark.parametrize("tag", CBOR_TAGS)
@pytest.mark.parametrize(
    "content", [b"\x80", b"\x00", b"\x61a", b"\x41a", b"\x82\x01\x02", b"\x82\x1a\x3b\x9a\xca\x00\x01"]
)
def test_cbor_refuses_every_tag(tag: int, content: bytes) -> None:
    head = cbor2.dumps(tag)
    with pytest.raises(DecodeError):
        CborEncoder().decode(bytes([head[0] | 0xC0]) + head[1:] + content)


@pytest.mark.parametrize(
    "data",
    [
        b"\x9f\x01\xff",  # indefinite list
        b"\xbf\x61a\x01\xff",  # indefinite map
        b"\x7f\x61a\xff",  # indefinite text
        b"\x5f\x41a\xff",  # indefinite bytes
        b"\xa2\x61a\x01\x61a\x02",  # a key twice
        b"\xa1\x01\x02",  # an int key
        b"\xa1\x41a\x02",  # a bytes key
        b"\xa1\xf5\x02",  # a bool key
        b"\xf7",  # undefined
        b"\xe0",  # simple value
        b"\xf8\xff",
        b"\xf9\x7e\x00",  # NaN
        b"\xf9\x7c\x00",  # infinity
        b"\xfb" + struct.pack("!d", float("-inf")),
        b"\x63\xed\xa0\x80",  # a lone surrogate
        b"\x62\xff\xfe",  # no UTF-8
        b"\x3b" + b"\xff" * 8,  # -(2**64)
        b"\x1c",
        b"\xff",
        b"\x81" * 65 + b"\x80",
        b"\xa1\x61a" * 65 + b"\x01",
        b"\x9b" + b"\x7f" + b"\xff" * 7,  # 2**63 items
        b"\xbb" + b"\x7f" + b"\xff" * 7,
        b"\x7b" + b"\x7f" + b"\xff" * 7,
        b"\x5b" + b"\x00\x00\x00\x7f" + b"\xff" * 4,
    ],
    ids=lambda data: data.hex()[:24],
)
def test_cbor_refuses(data: bytes) -> None:
    with pytest.raises(DecodeError):
        CborEncoder().decode(data)


def test_cbor_takes_other_producers_bytes() -> None:
    assert CborEncoder().decode(b"\xa2\x61b\x18\x01\x61a\xfa\x3f\x80\x00\x00") == {"b": 1, "a": 1.0}


@pytest.mark.parametrize(
    "data",
    [
        b"\x82\xa1a\x01\xa1a\x02",  # a key twice
        b"\x81\x01\x02",  # an int key
        b"\x81\xc4\x01a\x02",  # a bytes key
        b"\x81\xc3\x02",
        b"\xcb" + struct.pack("!d", float("nan")),
        b"\xcb" + struct.pack("!d", float("inf")),
        b"\xca" + struct.pack("!f", 1.5),  # 32-bit
        b"\xcc\x01",  # an int in more bytes than it needs
        b"\xd9\x01a",
        b"\xdc\x00\x01\x01",
        b"\xd4\x05\x00",  # extension
        b"\xd6\xff\x00\x00\x00\x00",  # timestamp
        b"\xc7\x0c\xff" + b"\xff" * 12,
        b"\xc1",
        b"\xa3\xed\xa0\x80",  # a lone surrogate
        b"\x91" * 65 + b"\x90",
        b"\x91" * 200_000,
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x05",
    ],
    ids=lambda data: data.hex()[:24],
)
def test_msgpack_refuses(data: bytes) -> None:
    with pytest.raises(DecodeError):
        MsgpackEncoder().decode(data)


@pytest.mark.parametrize("encoder", COMPRESSIONS, ids=lambda each: each.id)
@given(data=st.binary(max_size=2000))
def test_compression_comes_back(encoder: Any, data: bytes) -> None:
    assert encoder.decode(encoder.encode(data)) == data


@pytest.mark.parametrize("encoder", COMPRESSIONS, ids=lambda each: each.id)
def test_compression_has_one_frame_and_an_end(encoder: Any) -> None:
    data = encoder.encode(b"some text, some text, some text" * 10)
    for length in range(len(data)):
        with pytest.raises(DecodeError):
            encoder.decode(data[:length])
    for more in (b"\x00", data):
        with pytest.raises(DecodeError):
            encoder.decode(data + more)


@pytest.mark.parametrize("encoder", COMPRESSIONS, ids=lambda each: each.id)
def test_compression_is_bounded_on_both_sides(encoder: Any) -> None:
    assert len(encoder.decode(encoder.encode(bytes(MAX_EXPANDED)))) == MAX_EXPANDED
    with pytest.raises(EncodeError, match="when decompressed"):
        encoder.encode(bytes(MAX_EXPANDED + 1))


def gzip_bomb(size: int) -> bytes:
    stream = zlib.compressobj(9, zlib.DEFLATED, 31)
    return stream.compress(bytes(size)) + stream.flush()


def zstd_stream_bomb(size: int) -> bytes:
    stream = zstandard.ZstdCompressor(write_checksum=True).compressobj()
    return stream.compress(bytes(size)) + stream.flush()


def zstd_liar(size: int) -> bytes:
    """A frame that claims 100 bytes and expands to more."""
    data = bytearray(zstandard.ZstdCompressor(write_checksum=True).compress(bytes(size)))
    assert data[4] >> 6 == 2  # the content size takes four bytes
    data[5 : 5 + 4] = (100).to_bytes(4, "little")
    return bytes(data)


@pytest.mark.parametrize(
    ("encoder", "bomb"),
    [
        (GzipEncoder(), gzip_bomb(64 * 2**20)),
        (ZstdEncoder(), zstandard.ZstdCompressor(write_checksum=True).compress(bytes(64 * 2**20))),
        (ZstdEncoder(), zstd_stream_bomb(64 * 2**20)),
        (ZstdEncoder(), zstd_liar(64 * 2**20)),
        (Lz4Encoder(), lz4.frame.compress(bytes(64 * 2**20))),
    ],
    ids=["gzip", "zstd", "zstd without size", "zstd with a false size", "lz4"],
)
def test_bombs(encoder: Any, bomb: bytes) -> None:
    with pytest.raises(DecodeError):
        encoder.decode(bomb)


CONTEXT = EncodeContext(purpose="args", namespace="stem", id="1", name="t", queue="q", chain="json+aes-gcm")
KEYS = {"a": b"A" * 32, "b": b"B" * 32}


def test_encryption_comes_back_and_differs_each_time() -> None:
    encoder = AesGcmEncoder(KEYS, "a")
    first, second = encoder.encode(b"data", CONTEXT), encoder.encode(b"data", CONTEXT)
    assert first != second
    assert encoder.decode(first, CONTEXT) == encoder.decode(second, CONTEXT) == b"data"
    assert b"data" not in first
    assert encoder.decode(encoder.encode(b"", CONTEXT), CONTEXT) == b""


@pytest.mark.parametrize(
    "change",
    [
        {"purpose": "result"},
        {"namespace": "other"},
        {"id": "2"},
        {"name": "u"},
        {"queue": "r"},
        {"chain": "cbor+aes-gcm"},
        {"name": "tq", "queue": ""},
    ],
    ids=repr,
)
def test_a_ciphertext_belongs_to_its_context(change: dict[str, Any]) -> None:
    encoder = AesGcmEncoder(KEYS, "a")
    with pytest.raises(DecodeError, match="belong elsewhere"):
        encoder.decode(encoder.encode(b"data", CONTEXT), msgspec.structs.replace(CONTEXT, **change))


def test_every_bit_and_every_length_of_a_ciphertext_counts() -> None:
    encoder = AesGcmEncoder(KEYS, "a")
    data = encoder.encode(b"some data", CONTEXT)
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DecodeError):
            encoder.decode(bytes(changed), CONTEXT)
    for length in range(len(data)):
        with pytest.raises(DecodeError):
            encoder.decode(data[:length], CONTEXT)


def test_encryption_keys_rotate() -> None:
    old, both, switched, new = (
        AesGcmEncoder({"a": KEYS["a"]}, "a"),
        AesGcmEncoder(KEYS, "a"),
        AesGcmEncoder(KEYS, "b"),
        AesGcmEncoder({"b": KEYS["b"]}, "b"),
    )
    waiting = old.encode(b"data", CONTEXT)
    assert both.decode(waiting, CONTEXT) == switched.decode(waiting, CONTEXT) == b"data"
    assert new.decode(switched.encode(b"data", CONTEXT), CONTEXT) == b"data"
    with pytest.raises(DecodeError, match=r"key 'a', which is not here; known: b. See STEM_ENCRYPTION_KEYS"):
        new.decode(waiting, CONTEXT)


@given(data=st.binary(max_size=100))
def test_encryption_refuses_any_bytes(data: bytes) -> None:
    with pytest.raises(DecodeError):
        AesGcmEncoder(KEYS, "a").decode(data, CONTEXT)


def entry(id: str, material: bytes) -> str:
    return f"{id}:{base64.b64encode(material).decode()}"


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "^STEM_ENCRYPTION_KEYS: It is not set"),
        (
            {"STEM_ENCRYPTION_KEYS": entry("a", b"A" * 16)},
            "^STEM_ENCRYPTION_KEYS: key 'a' has 16 bytes; AES-256 needs 32",
        ),
        ({"STEM_ENCRYPTION_KEYS": "secret"}, "^STEM_ENCRYPTION_KEYS: entry 1 is not of the form"),
        (
            {"STEM_ENCRYPTION_KEYS": f"{entry('a', KEYS['a'])},{entry('b', KEYS['b'])}"},
            "^STEM_ENCRYPTION_ACTIVE_KEY: It is not set, and there are 2 keys",
        ),
        (
            {"STEM_ENCRYPTION_KEYS": entry("a", KEYS["a"]), "STEM_ENCRYPTION_ACTIVE_KEY": "c"},
            "^STEM_ENCRYPTION_ACTIVE_KEY: no key is called 'c'; known: a",
        ),
    ],
)
def test_mistakes_in_the_environment(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        open_aes_gcm(environment)


def test_keys_are_not_shown() -> None:
    secret = os.urandom(32)
    encoder = open_aes_gcm({"STEM_ENCRYPTION_KEYS": entry("a", secret)})
    assert repr(encoder) == "<AesGcmEncoder active=a keys=a>"


def test_every_spec_makes_its_encoder() -> None:
    environment = {"STEM_ENCRYPTION_KEYS": entry("a", KEYS["a"])}
    for spec in stem_encoders():
        assert spec.unavailable is None
        encoder = spec.open(environment)
        assert (encoder.id, encoder.kind) == (spec.id, spec.kind)
        assert spec.context == isinstance(encoder, AesGcmEncoder)


def test_without_its_library_a_spec_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import import_module

    monkeypatch.delitem(sys.modules, "stem_codecs.plugin")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    plugin = import_module("stem_codecs.plugin")
    missing = {each.id: each.unavailable for each in plugin.stem_encoders() if each.unavailable}
    assert missing == {
        "zstd": "pip install 'stem-codecs[zstd]'",
        "lz4": "pip install 'stem-codecs[lz4]'",
        "aes-gcm": "pip install 'stem-codecs[aes-gcm]'",
    }
