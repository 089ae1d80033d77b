"""Small bytes that would become large or slow: refused within 50 ms of processor time and 16 MiB.

The clock is the processor's own of this thread, so a busy machine fails nobody; the best of three counts.
"""

from __future__ import annotations

import time
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any, Final

import lz4.frame
import pytest
import zstandard

from stem_core.errors import DecodeError, StemError
from stem_core.ports.encoder import EncodeContext
from stem_core.sealing import open_sealed
from tests.security import ring

MOST_SECONDS: Final = 0.05
MOST_BYTES: Final = 16 * 2**20
LIMIT: Final = 262_144
CONTEXT: Final = EncodeContext(purpose="args", namespace="stem", id="1", name="t", queue="q", chain="")
ENCODERS: Final = ring.registry()


def cbor_head(major: int, size: int) -> bytes:
    return bytes([major << 5 | 27]) + size.to_bytes(8, "big")


def gzip(data: bytes) -> bytes:
    stream = zlib.compressobj(9, zlib.DEFLATED, 31)
    return stream.compress(data) + stream.flush()


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=3, write_checksum=True).compress(data)


ZEROES: Final = bytes(128 * 2**20)
LISTS: Final = b"[" + b"[]," * 1_300_000 + b"[]]"
#: name -> (encoder chain, bytes)
BOMBS: Final[dict[str, tuple[str, Callable[[], bytes]]]] = {
    "json: 200,000 nested lists": ("json", lambda: b"[" * 200_000),
    "json: 65 nested maps": ("json", lambda: b'{"a":' * 65 + b"1" + b"}" * 65),
    "json: 87,000 lists": ("json", lambda: b"[" + b"[]," * 87_000 + b"[]]"),
    "json: a number of 200,000 digits": ("json", lambda: b"9" * 200_000),
    "json: a number of 100 digits": ("json", lambda: b"9" * 100),
    "json: an exponent of 10**9": ("json", lambda: b"1e1000000000"),
    "json: NaN": ("json", lambda: b"[NaN]"),
    "json: Infinity": ("json", lambda: b"[-Infinity]"),
    "json: a lone surrogate": ("json", lambda: b'["\\ud800"]'),
    "json: a raw surrogate": ("json", lambda: b'["\xed\xa0\x80"]'),
    "json: a key twice": ("json", lambda: b'{"a":1,"a":2}'),
    "json: trailing bytes": ("json", lambda: b"[[],{}] []"),
    "json: 200,000 escaped quotes": ("json", lambda: b'"' + b'\\"' * 100_000),
    "json: a UTF-16 text": ("json", lambda: "[1]".encode("utf-16")),
    "json: nothing": ("json", lambda: b""),
    "cbor: 200,000 nested lists": ("cbor", lambda: b"\x81" * 200_000),
    "cbor: 65 nested maps": ("cbor", lambda: b"\xa1\x61a" * 65 + b"\x01"),
    "cbor: 262,000 lists": ("cbor", lambda: b"\x9a\x00\x04\x00\x00" + b"\x80" * 262_144),
    "cbor: 262,000 maps": ("cbor", lambda: b"\x9a\x00\x04\x00\x00" + b"\xa0" * 262_144),
    "cbor: 65,000 maps of one": ("cbor", lambda: b"\x9a\x00\x00\xff\xff" + b"\xa1\x61a\x00" * 65_535),
    "cbor: a list of 2**62": ("cbor", lambda: cbor_head(4, 2**62)),
    "cbor: a map of 2**62": ("cbor", lambda: cbor_head(5, 2**62)),
    "cbor: a text of 2**62": ("cbor", lambda: cbor_head(3, 2**62) + b"a"),
    "cbor: bytes of 2**62": ("cbor", lambda: cbor_head(2, 2**62) + b"a"),
    "cbor: a list of 2**24, cut": ("cbor", lambda: b"\x9a\x01\x00\x00\x00" + b"\x00" * 1000),
    "cbor: a cycle": ("cbor", lambda: b"\xd8\x1c\x81\xd8\x1d\x00"),
    "cbor: a regular expression": ("cbor", lambda: b"\xd8\x23\x6f(a+)+$(a+)+$a+)"),
    "cbor: a bignum of 200,000 bytes": ("cbor", lambda: b"\xc2\x5a\x00\x03\x0d\x40" + b"\xff" * 200_000),
    "cbor: a decimal exponent of 10**9": ("cbor", lambda: b"\xc4\x82\x1a\x3b\x9a\xca\x00\x01"),
    "cbor: a bigfloat exponent": ("cbor", lambda: b"\xc5\x82\x1a\x3b\x9a\xca\x00\x01"),
    "cbor: a rational": ("cbor", lambda: b"\xd8\x1e\x82\x01\x00"),
    "cbor: string references": ("cbor", lambda: b"\xd9\x01\x00\x82\x63aaa\xd8\x19\x00"),
    "cbor: a MIME message": ("cbor", lambda: b"\xd8\x24\x63a:b"),
    "cbor: a set of lists": ("cbor", lambda: b"\xd9\x01\x02\x81\x81\x01"),
    "cbor: an indefinite list": ("cbor", lambda: b"\x9f" + b"\x01" * 1000 + b"\xff"),
    "cbor: a key twice": ("cbor", lambda: b"\xa2\x61a\x01\x61a\x02"),
    "cbor: NaN": ("cbor", lambda: b"\xf9\x7e\x00"),
    "cbor: trailing bytes": ("cbor", lambda: b"\x01\x02"),
    "msgpack: 200,000 nested lists": ("msgpack", lambda: b"\x91" * 200_000),
    "msgpack: 65 nested maps": ("msgpack", lambda: b"\x81\xa1a" * 65 + b"\x01"),
    "msgpack: 262,000 lists": ("msgpack", lambda: b"\xdd\x00\x04\x00\x00" + b"\x90" * 262_144),
    "msgpack: 65,000 maps of one": ("msgpack", lambda: b"\xdd\x00\x00\xff\xff" + b"\x81\xa1a\x00" * 65_535),
    "msgpack: a list of 2**32": ("msgpack", lambda: b"\xdd\xff\xff\xff\xff"),
    "msgpack: a map of 2**32": ("msgpack", lambda: b"\xdf\xff\xff\xff\xff"),
    "msgpack: a text of 2**32": ("msgpack", lambda: b"\xdb\xff\xff\xff\xffa"),
    "msgpack: an extension": ("msgpack", lambda: b"\xc8\xff\xff\x05" + b"a" * 65_535),
    "msgpack: a key twice": ("msgpack", lambda: b"\x82\xa1a\x01\xa1a\x02"),
    "msgpack: NaN": ("msgpack", lambda: b"\xcb\x7f\xf8" + bytes(6)),
    "msgpack: trailing bytes": ("msgpack", lambda: b"\x01\x02"),
    "gzip: 128 MiB of zeroes": ("json+gzip", lambda: gzip(ZEROES)),
    "gzip: 1.3 million lists": ("json+gzip", lambda: gzip(LISTS)),
    "gzip: gzip of gzip of zeroes": ("json+gzip+gzip", lambda: gzip(gzip(ZEROES))),
    "gzip: two members": ("json+gzip", lambda: gzip(b"[[],{}]") * 2),
    "zstd: 128 MiB of zeroes": ("json+zstd", lambda: zstd(ZEROES)),
    "zstd: 1.3 million lists": ("json+zstd", lambda: zstd(LISTS)),
    "zstd: 4 million cbor lists": ("cbor+zstd", lambda: zstd(b"\x9a\x00\x3f\x00\x00" + b"\x80" * 0x3F0000)),
    "zstd: 4 million msgpack lists": (
        "msgpack+zstd",
        lambda: zstd(b"\xdd\x00\x3f\x00\x00" + b"\x90" * 0x3F0000),
    ),
    "lz4: 128 MiB of zeroes": ("json+lz4", lambda: bytes(lz4.frame.compress(ZEROES))),
    "aes-gcm: 262,000 random bytes": ("json+aes-gcm", lambda: b"\x01\x01a" + b"\x55" * 262_000),
}


def measured(call: Callable[[], Any]) -> float:
    """Seconds of processor time of the best of three, which must raise a StemError."""
    best = 1e9
    for _ in range(3):
        start = time.thread_time()
        with pytest.raises(StemError):
            call()
        best = min(best, time.thread_time() - start)
    return best


def allocated(call: Callable[[], Any]) -> int:
    """The most bytes held at once."""
    tracemalloc.start()
    try:
        with pytest.raises(StemError):
            call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def told(
    record_property: Callable[[str, object], None],
    table: str,
    name: str,
    data: bytes,
    seconds: float,
    memory: int,
) -> None:
    """Check what was measured, and tell it."""
    record_property("table", table)
    record_property("attack", name)
    record_property(
        "answer", f"{len(data):>9,} bytes refused in {seconds * 1e3:6.2f} ms, {memory / 2**20:5.2f} MiB"
    )
    assert seconds < MOST_SECONDS
    assert memory < MOST_BYTES


@pytest.mark.parametrize("name", BOMBS)
def test_a_payload_bomb_is_refused_quickly_and_in_little_memory(
    name: str, record_property: Callable[[str, object], None]
) -> None:
    chain, make = BOMBS[name]
    data = make()

    def decode() -> None:
        ENCODERS.decode(chain, data, CONTEXT)

    with pytest.raises(DecodeError):
        decode()
    told(record_property, "payload bombs", name, data, measured(decode), allocated(decode))


def framed(inner: bytes, signatures: bytes = b"", count: int = 0) -> bytes:
    return b"STM\x01" + bytes([count]) + len(inner).to_bytes(4, "big") + signatures + inner


#: A valid start of an envelope's inner bytes, for 7 fields.
START: Final = (
    b"\x87\xa2id\xa11\xa4name\xa1t\xa5queue\xa1q\xa4args\xc4\x00\xa7encoder\xa4json"
    b"\xabenqueued_at\xd6\xff\x69\x57\x35\xa5"
)
ENVELOPES: Final[dict[str, bytes]] = {
    "nothing": b"",
    "not ours": b"\x80\x04\x95" + b"pickle" * 1000,
    "only a head": framed(b""),
    "a length of 4 GiB": b"STM\x01\x00\xff\xff\xff\xff",
    "255 signatures": framed(b"", count=255),
    "a signature of 65,535 bytes, cut": b"STM\x01\x01\x00\x00\x00\x00\x01a\x01a\xff\xff",
    "meta: 200,000 nested lists": framed(START + b"\xa4meta\x81\xa1a" + b"\x91" * 200_000),
    "meta: 65 nested lists": framed(START + b"\xa4meta\x81\xa1a" + b"\x91" * 65 + b"\x90"),
    "meta: 250,000 lists": framed(START + b"\xa4meta\x81\xa1a\xdd\x00\x03\xd0\x90" + b"\x90" * 250_000),
    "meta: a list of 2**32": framed(START + b"\xa4meta\x81\xa1a\xdd\xff\xff\xff\xff"),
    "meta: NaN": framed(START + b"\xa4meta\x81\xa1a\xcb\x7f\xf8" + bytes(6)),
    "meta: an extension": framed(START + b"\xa4meta\x81\xa1a\xd4\x05\x00"),
    "meta: a timestamp": framed(START + b"\xa4meta\x81\xa1a\xd6\xff\x00\x00\x00\x00"),
    "meta: bytes": framed(START + b"\xa4meta\x81\xa1a\xc4\x01a"),
    "meta: a key twice": framed(START + b"\xa4meta\x82\xa1a\x01\xa1a\x02"),
    "headers: 60,000 of them": framed(
        START
        + b"\xa7headers\xde\xea\x60"
        + b"".join(b"\xa4" + b"%04x" % each + b"\xa0" for each in range(60_000))
    ),
    "a timestamp in the year 10**9": framed(
        START.replace(b"\xd6\xff\x69\x57\x35\xa5", b"\xc7\x0c\xff" + b"\x7f" * 12)
    ),
    "an unknown field of 200 kB": framed(START + b"\xa7unknown\xc6\x00\x03\x0d\x40" + bytes(200_000)),
}


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("name", ENVELOPES)
def test_an_envelope_bomb_is_refused_quickly_and_in_little_memory(
    name: str, signed: bool, record_property: Callable[[str, object], None]
) -> None:
    signer = ring.signer("hmac-sha256") if signed else None

    def opening() -> None:
        open_sealed(ENVELOPES[name], namespace="stem", signer=signer)

    table = f"envelope bombs, {'signer' if signed else 'no signer'}"
    told(record_property, table, name, ENVELOPES[name], measured(opening), allocated(opening))


def test_the_start_of_these_envelopes_is_valid() -> None:
    whole = b"\x86" + START[1:]
    assert open_sealed(framed(whole), namespace="stem").id == "1"
