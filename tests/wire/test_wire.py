"""docs/wire-vectors.json: Stem makes exactly these bytes, and a second reader opens every one of them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from stem_codecs.cbor import CborEncoder
from stem_codecs.msgpack import MsgpackEncoder
from stem_core.builtin.json_encoder import JsonEncoder
from stem_core.envelope import Envelope
from stem_core.errors import StemError
from stem_core.options import TaskRetryPolicy
from stem_core.sealing import open_sealed
from tests.wire import reader, vectors

FILE: dict[str, Any] = json.loads(vectors.FILE.read_text(encoding="utf-8"))
SECRETS = {id: bytes.fromhex(text) for id, text in FILE["keys"]["hmac-sha256"].items()}
PUBLICS = {id: bytes.fromhex(text) for id, text in FILE["keys"]["ed25519-public"].items()}
VECTORS = [pytest.param(each, id=each["name"]) for each in FILE["vectors"]]
SIGNED = [pytest.param(each, id=each["name"]) for each in FILE["vectors"] if each["signatures"]]


def test_stem_makes_exactly_the_published_bytes() -> None:
    assert vectors.build() == FILE, "the wire format changed: version 1 is frozen"


@pytest.mark.parametrize("case", VECTORS)
def test_the_second_reader_opens_it(case: dict[str, Any]) -> None:
    keys = (SECRETS, PUBLICS) if case["signatures"] else (None, None)
    assert reader.open_message(bytes.fromhex(case["sealed"]), case["namespace"], *keys) == case["envelope"]


@pytest.mark.parametrize("case", VECTORS)
def test_stem_opens_it(case: dict[str, Any]) -> None:
    signer = vectors.signer(case["signatures"][0]["algorithm"]) if case["signatures"] else None
    opened = open_sealed(bytes.fromhex(case["sealed"]), namespace=case["namespace"], signer=signer)
    assert vectors.shown(opened) == case["envelope"]


@pytest.mark.parametrize("case", SIGNED)
def test_both_readers_refuse_it_in_another_namespace(case: dict[str, Any]) -> None:
    sealed = bytes.fromhex(case["sealed"])
    with pytest.raises(reader.Refused):
        reader.open_message(sealed, "other", SECRETS, PUBLICS)
    with pytest.raises(StemError):
        open_sealed(sealed, namespace="other", signer=vectors.signer(case["signatures"][0]["algorithm"]))


@pytest.mark.parametrize("case", [pytest.param(each, id=each["name"]) for each in FILE["refused"]])
def test_both_readers_refuse(case: dict[str, Any]) -> None:
    sealed = bytes.fromhex(case["sealed"])
    with pytest.raises(reader.Refused):
        reader.open_message(sealed, "stem", None, None)
    with pytest.raises(StemError):
        open_sealed(sealed, namespace="stem")


def test_the_full_vector_sets_every_field() -> None:
    for value in (vectors.FULL, vectors.FULL.retry_policy, vectors.FULL.limits, vectors.FULL.input):
        assert value is not None
        assert set(msgspec.to_builtins(value)) == set(value.__struct_fields__)


def test_the_document_lists_every_field_in_order() -> None:
    assert list(Envelope.__struct_fields__) == reader.ORDER
    assert list(TaskRetryPolicy.__struct_fields__) == reader.NESTED["retry_policy"]
    lines = (
        (vectors.FILE.parent / "wire-format.md")
        .read_text(encoding="utf-8")
        .split("## 4. Fields")[1]
        .split("## 5.")[0]
    )
    listed = [line.split("`")[1] for line in lines.splitlines() if line.startswith("| `")]
    assert listed == [*reader.ORDER, *reader.NESTED]


@pytest.mark.parametrize("case", FILE["payloads"], ids=lambda each: each["encoder"])
def test_payload_vectors(case: dict[str, Any]) -> None:
    encoder = {each.id: each for each in (JsonEncoder(), CborEncoder(), MsgpackEncoder())}[case["encoder"]]
    assert encoder.encode(case["value"]).hex() == case["bytes"]
    assert encoder.decode(bytes.fromhex(case["bytes"])) == case["value"]
