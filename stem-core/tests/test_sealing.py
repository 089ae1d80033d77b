"""stem_core.sealing: what seal makes, open_sealed opens; what it would refuse, seal refuses first."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from stem_core.envelope import Envelope, Limits
from stem_core.errors import ConfigurationError, DecodeError, EncodeError, PayloadTooLarge, SignatureInvalid
from stem_core.ports.signer import (
    KeyScope,
    SignatureBlock,
    pre_authentication_encoding,
    pre_authentication_prefix,
)
from stem_core.sealing import MAX_SEALED, Mould, open_sealed, pack, parse, seal, unpack

NOW = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)


def envelope(**fields: Any) -> Envelope:
    usual: dict[str, Any] = {
        "id": "1",
        "name": "t",
        "queue": "q",
        "args": b"[[],{}]",
        "encoder": "json",
        "enqueued_at": NOW,
    }
    return Envelope(**{**usual, **fields})


def test_what_is_sealed_is_opened() -> None:
    each = envelope(
        meta={"a": [None, 1.5, {"b": "é"}]}, headers={"x": "y"}, priority=9, on_success=(b"", b"x")
    )
    assert open_sealed(seal(each, namespace="stem"), namespace="stem") == each


def test_one_envelope_has_one_form() -> None:
    loose = envelope(delay=5, time_limit=3, enqueued_at=NOW.astimezone(timezone(timedelta(hours=2))))
    strict = envelope(delay=5.0, time_limit=3.0)
    assert seal(loose, namespace="stem") == seal(strict, namespace="stem")
    assert type(open_sealed(seal(loose, namespace="stem"), namespace="stem").delay) is float


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"delay": 5, "time_limit": 3, "limits": Limits(rate_limit="5/s"), "route": {"exchange": "e"}},
        {"name": "n" * 128, "queue": "é" * 60, "encoder": "json+gzip", "priority": 9, "max_retries": 300},
        {"name": "id", "queue": "args", "encoder": "enqueued_at", "result_ttl": 0.5, "shadow": "id"},
    ],
)
def test_what_is_filled_into_a_mould_is_what_would_be_sealed(fields: dict[str, Any]) -> None:
    mould = Mould(envelope(**fields))
    for id in ("1", "i" * 31, "i" * 32, "i" * 128):
        for args in (b"", b"x" * 255, b"x" * 256, b"x" * 70_000):
            for when in (NOW, NOW.replace(microsecond=0), datetime(1969, 1, 1, tzinfo=UTC)):
                each = envelope(id=id, args=args, enqueued_at=when, **fields)
                filled = seal(each, namespace="stem", inner=mould.fill(id, args, when))
                assert filled == seal(each, namespace="stem")
    with pytest.raises(EncodeError, match="not a task id"):
        mould.fill("a b", b"", NOW)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"id": ""}, "not a task id"),
        ({"id": "a b"}, "not a task id"),
        ({"name": "x" * 129}, "task's name"),
        ({"queue": "a\nb"}, "queue's name"),
        ({"priority": 10}, "priority 10"),
        ({"max_retries": -1}, "max_retries -1"),
        ({"delay": -1.0}, "delay"),
        ({"delay": float("nan")}, "delay"),
        ({"time_limit": 0.0}, "limit of 0.0 s"),
        ({"visibility_timeout": float("inf")}, "limit of inf s"),
        ({"result_ttl": 0.0}, "result_ttl"),
        ({"enqueued_at": datetime(2026, 1, 2)}, "no timezone"),  # noqa: DTZ001
        ({"expires": datetime(2026, 1, 2)}, "no timezone"),  # noqa: DTZ001
        ({"limits": Limits(rate_limit="often")}, "rate_limit='often' is not a rate"),
        ({"meta": {"when": NOW}}, r"meta\.when: a datetime"),
        ({"meta": {"n": [float("nan")]}}, r"meta\.n\[0\]: nan"),
        ({"meta": {"n": 2**70}}, "cannot be sealed"),
        ({"meta": {"o": object()}}, "cannot be sealed"),
        ({"meta": {"b": b"bytes"}}, r"meta\.b: a bytes"),
        ({"headers": {"x": 1}}, "headers"),
        ({"headers": {"x": "\ud800"}}, "cannot be sealed"),
        ({"meta": {"text": "x" * 70_000}}, "'meta' takes"),
    ],
    ids=lambda each: "-".join(each) if isinstance(each, dict) else str(each),
)
def test_what_would_be_refused_is_not_sealed(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(EncodeError, match=message):
        seal(envelope(**fields), namespace="stem")


@pytest.mark.parametrize(
    "fields",
    [
        {"priority": 10},
        {"delay": float("nan")},
        {"result_ttl": -5.0},
        {"id": "a b"},
        {"queue": ""},
        {"meta": {"n": float("nan")}},
        {"limits": Limits(rate_limit="often")},
    ],
    ids=repr,
)
def test_what_nobody_means_is_not_opened(fields: dict[str, Any]) -> None:
    with pytest.raises(DecodeError, match="not an envelope"):
        parse(msgspec.msgpack.encode(envelope(**fields)))


def test_sizes_are_bounded_on_both_sides() -> None:
    large = envelope(args=bytes(MAX_SEALED))
    with pytest.raises(PayloadTooLarge, match=rf"the limit is {MAX_SEALED}"):
        seal(large, namespace="stem")
    sealed = seal(large, namespace="stem", limit=2 * MAX_SEALED)
    assert open_sealed(sealed, namespace="stem", limit=2 * MAX_SEALED) == large
    with pytest.raises(DecodeError, match="the limit is"):
        open_sealed(sealed, namespace="stem")


class Signer:
    """Accepts any signature by key "k", for the scope it is given."""

    def __init__(self, scope: KeyScope) -> None:
        self.scope = scope

    def sign(
        self, purpose: str, namespace: str, payload: bytes, *, queue: str, task: str
    ) -> Sequence[SignatureBlock]:
        if not self.scope.allows(queue, task):
            raise ConfigurationError("not in scope")
        return [
            SignatureBlock("any", "k", pre_authentication_encoding(purpose, "any", "k", namespace, payload))
        ]

    def verify(
        self, purpose: str, namespace: str, payload: bytes, signatures: Sequence[SignatureBlock]
    ) -> KeyScope:
        [block] = signatures
        if block.signature == pre_authentication_encoding(purpose, "any", "k", namespace, payload):
            return self.scope
        raise SignatureInvalid("another signature")


def test_with_a_signer_everything_before_its_verdict_is_an_invalid_signature() -> None:
    """Who wrote bytes that cannot even be taken apart is not known either."""
    signer = Signer(KeyScope("k"))
    sealed = seal(envelope(), namespace="stem", signer=signer)
    assert open_sealed(sealed, namespace="stem", signer=signer).id == "1"
    for bytes_ in (
        b"",
        b"STM",
        sealed[:-1],
        sealed + b"\0",
        seal(envelope(), namespace="stem"),
        bytes(MAX_SEALED + 1),
    ):
        with pytest.raises(SignatureInvalid):
            open_sealed(bytes_, namespace="stem", signer=signer)
    with pytest.raises(SignatureInvalid):
        open_sealed(sealed, namespace="other", signer=signer)


def test_a_key_speaks_for_its_scope_only() -> None:
    everything = Signer(KeyScope("k"))
    limited = Signer(KeyScope("k", frozenset({"q", "mail-*"}), frozenset({"t"})))
    for queue, task, allowed in (
        ("q", "t", True),
        ("mail-eu", "t", True),
        ("mail", "t", False),
        ("q", "u", False),
    ):
        sealed = seal(envelope(queue=queue, name=task), namespace="stem", signer=everything)
        if allowed:
            assert open_sealed(sealed, namespace="stem", signer=limited).queue == queue
        else:
            with pytest.raises(SignatureInvalid, match="may not speak for"):
                open_sealed(sealed, namespace="stem", signer=limited)


def test_pack_and_unpack_are_each_others_inverse_and_strict() -> None:
    blocks = (SignatureBlock("a", "k1", b"1" * 32), SignatureBlock("b", "k2", b""))
    for count in (1, 2):
        parts = unpack(pack(blocks[:count], b"inner"))
        assert (parts.signatures, parts.inner) == (blocks[:count], b"inner")
    with pytest.raises(ValueError, match="3 signatures"):
        pack([*blocks, blocks[0]], b"")
    with pytest.raises(ValueError, match="1 to 64 bytes"):
        pack([SignatureBlock("a", "k" * 65, b"")], b"")
    whole = pack(blocks, b"inner")
    for length in range(len(whole)):
        with pytest.raises(DecodeError):
            unpack(whole[:length])


def test_no_two_inputs_have_one_pre_authentication_encoding() -> None:
    inputs = [
        ("ab", "c", "d", "e", b"f"),
        ("a", "bc", "d", "e", b"f"),
        ("ab", "c", "de", "", b"f"),
        ("", "", "", "", b"abcdef"),
    ]
    assert len({pre_authentication_encoding(*each) for each in inputs}) == len(inputs)
    for purpose, algorithm, key_id, namespace, payload in inputs:
        prefix = pre_authentication_prefix(purpose, algorithm, key_id, namespace)
        whole = pre_authentication_encoding(purpose, algorithm, key_id, namespace, payload)
        assert whole == prefix + len(payload).to_bytes(8, "little") + payload
