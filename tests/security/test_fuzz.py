"""Mutated and random bytes for every decoder: a value or the documented error, nothing else, never for long."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, Final

import pytest

from stem_core.errors import DecodeError, SignatureInvalid
from stem_core.plain import check_plain
from stem_core.ports.encoder import EncodeContext
from stem_core.sealing import open_sealed
from tests.security import ring
from tests.wire import vectors

CONTEXT: Final = EncodeContext(purpose="args", namespace="stem", id="1", name="t", queue="q", chain="")
VALUES: Final[list[Any]] = [
    vectors.VALUE,
    [[], {}],
    [[None, True, -1, 2**63, 1.5, "é" * 40, [1] * 20], {"k" * 40: {"deep": [[[[]]]]}}],
    [[{str(index): index for index in range(20)}], {"text": '\x00\n"\\'}],
]
ENCODERS: Final = ring.registry()
#: Bytes that mean something to some format.
TELLING: Final = bytes.fromhex(
    "00 01 17 18 1a 1b 7f 80 81 9f a0 bf c0 c1 c4 c7 ca d4 d8 d9 dc dd de df f7 f9 ff 22 5b 7b 5c"
)


def mutated(source: random.Random, data: bytes) -> bytes:
    """``data`` after a few changes of the kinds that break parsers."""
    changed = bytearray(data)
    for _ in range(source.randint(1, 4)):
        place = source.randrange(len(changed) + 1)
        match source.randrange(7):
            case 0 if place < len(changed):
                changed[place] ^= 1 << source.randrange(8)
            case 1 if place < len(changed):
                changed[place] = source.choice(TELLING)
            case 2:
                changed[place:place] = bytes([source.choice(TELLING)]) * source.choice((1, 1, 2, 70))
            case 3:
                del changed[place : place + source.randint(1, 8)]
            case 4:
                other = source.randrange(len(changed) + 1)
                changed[place:place] = changed[other : other + source.randint(1, 20)]
            case 5:
                changed[place : place + 4] = source.choice((b"\xff" * 4, b"\x7f\xff\xff\xff", bytes(4)))
            case _:
                changed[place:place] = source.randbytes(source.randint(1, 9))
    return bytes(changed)


def fuzz(decode: Callable[[bytes], object], corpus: list[bytes], count: int, allowed: type[Exception]) -> int:
    """Feed ``count`` inputs; how many were refused."""
    source = random.Random(f"{count}")
    refused, slowest = 0, 0.0
    for _ in range(count):
        data = (
            mutated(source, source.choice(corpus))
            if source.random() < 0.95
            else source.randbytes(source.randint(0, 64))
        )
        start = time.thread_time()
        try:
            decode(data)
        except allowed:
            refused += 1
        slowest = max(slowest, time.thread_time() - start)
    assert slowest < 1
    return refused


def check_payload_decoder(chain: str, count: int) -> None:
    binary = not chain.startswith("json")

    def decode(data: bytes) -> None:
        check_plain(ENCODERS.decode(chain, data, CONTEXT), binary=binary, error=AssertionError)

    corpus = [ENCODERS.encode(chain, value, CONTEXT) for value in VALUES]
    assert fuzz(decode, corpus, count, DecodeError) > count // 4


def check_envelopes(count: int) -> None:
    def decode(data: bytes) -> None:
        open_sealed(data, namespace="stem")

    corpus = [bytes.fromhex(each["sealed"]) for each in vectors.build()["vectors"][:3]]
    assert fuzz(decode, corpus, count, DecodeError) > count // 2


def check_signed_envelopes(count: int) -> None:
    signer = vectors.signer("hmac-sha256")

    def decode(data: bytes) -> None:
        open_sealed(data, namespace="stem", signer=signer)
        accepted.append(data)

    accepted: list[bytes] = []
    cases = [each for each in vectors.build()["vectors"] if each["namespace"] == "stem"]
    corpus = [bytes.fromhex(each["sealed"]) for each in cases if "hmac" in each["name"]]
    fuzz(decode, corpus, count, SignatureInvalid)
    # A second signature is not covered by the first: breaking it leaves a message that is still signed.
    inners = {bytes.fromhex(each["inner"]) for each in cases}
    assert all(any(data.endswith(inner) for inner in inners) for data in accepted)


@pytest.mark.parametrize("chain", ring.CHAINS)
def test_payload_decoders(chain: str) -> None:
    check_payload_decoder(chain, 3_000)


def test_envelopes() -> None:
    check_envelopes(3_000)


def test_signed_envelopes() -> None:
    check_signed_envelopes(3_000)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("chain", ring.CHAINS)
def test_payload_decoders_for_long(chain: str) -> None:
    check_payload_decoder(chain, 500_000)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_envelopes_for_long() -> None:
    check_envelopes(1_000_000)
    check_signed_envelopes(500_000)
