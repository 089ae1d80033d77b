"""Every bit flip and every truncation of a signed envelope, each signer with each encoder: none is accepted."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from stem_core.envelope import Envelope
from stem_core.errors import SignatureInvalid
from stem_core.ports.encoder import EncodeContext
from stem_core.ports.signer import PayloadSigner
from stem_core.sealing import open_sealed, seal
from tests.security import ring


def sealed(signer: PayloadSigner, chain: str) -> bytes:
    context = EncodeContext(
        purpose="args", namespace="stem", id="task-1", name="mail.send", queue="mail", chain=chain
    )
    args = ring.registry().encode(chain, [[1], {"to": "ops@example.com"}], context)
    envelope = Envelope(
        id="task-1",
        name="mail.send",
        queue="mail",
        args=args,
        encoder=chain,
        enqueued_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    )
    return seal(envelope, namespace="stem", signer=signer)


def variants(data: bytes) -> Iterator[bytes]:
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)
    for length in range(len(data)):
        yield data[:length]
    yield data + b"\x00"
    yield b"\x00" + data


@pytest.mark.parametrize("chain", ring.CHAINS)
@pytest.mark.parametrize("algorithm", ring.ALGORITHMS)
def test_no_flip_and_no_truncation_is_accepted(algorithm: str, chain: str) -> None:
    signer = ring.signer(algorithm)
    data = sealed(signer, chain)
    assert open_sealed(data, namespace="stem", signer=signer).id == "task-1"
    accepted = []
    for each in variants(data):
        try:
            open_sealed(each, namespace="stem", signer=signer)
        except SignatureInvalid:
            continue
        accepted.append(each)
    assert accepted == []


@pytest.mark.parametrize("algorithm", ring.ALGORITHMS)
def test_nothing_is_parsed_before_it_is_verified(algorithm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from stem_core import sealing

    signer = ring.signer(algorithm)
    data = sealed(signer, "json")
    parsed: list[bytes] = []
    real = sealing.parse

    def watched(inner: bytes) -> Envelope:
        parsed.append(inner)
        return real(inner)

    monkeypatch.setattr(sealing, "parse", watched)
    for position in range(0, len(data), 7):
        changed = bytearray(data)
        changed[position] ^= 0xFF
        with pytest.raises(SignatureInvalid):
            open_sealed(bytes(changed), namespace="stem", signer=signer)
    assert parsed == []
    open_sealed(data, namespace="stem", signer=signer)
    assert len(parsed) == 1
