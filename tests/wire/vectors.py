"""The published test vectors: inputs and keys here, sealed bytes in docs/wire-vectors.json.

``python tests/wire/vectors.py`` writes the file; a change to it is a change of the wire format.
"""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from stem_codecs.cbor import CborEncoder
from stem_codecs.msgpack import MsgpackEncoder
from stem_core.builtin.json_encoder import JsonEncoder
from stem_core.envelope import Envelope, Input, Limits
from stem_core.options import TaskRetryPolicy
from stem_core.ports.signer import PayloadSigner
from stem_core.sealing import ENVELOPE_PURPOSE, pack, seal, unpack
from stem_signing.plugin import ED25519, HMAC_SHA256

FILE: Final = Path(__file__).parent.parent.parent / "docs" / "wire-vectors.json"


def _material(name: str) -> bytes:
    return hashlib.sha256(f"stem wire vectors: {name}".encode()).digest()


SECRETS: Final = {"2026-01": _material("hmac 1"), "2026-02": _material("hmac 2")}
SEEDS: Final = {"ed-a": _material("ed25519 a"), "ed-b": _material("ed25519 b")}


def _entries(keys: dict[str, bytes]) -> str:
    return ",".join(f"{id}:{base64.b64encode(material).decode()}" for id, material in keys.items())


def signer(kind: str, *, cosign: bool = False) -> PayloadSigner:
    """The signer of the vectors, with the first key active."""
    if kind == "hmac-sha256":
        given = {"STEM_SIGNING_KEYS": _entries(SECRETS), "STEM_SIGNING_ACTIVE_KEY": "2026-01"}
        return HMAC_SHA256.open(given | ({"STEM_SIGNING_COSIGN_KEY": "2026-02"} if cosign else {}))
    given = {"STEM_SIGNING_PRIVATE_KEYS": _entries(SEEDS), "STEM_SIGNING_ACTIVE_KEY": "ed-a"}
    return ED25519.open(given | ({"STEM_SIGNING_COSIGN_KEY": "ed-b"} if cosign else {}))


MINIMAL: Final = Envelope(
    id="1",
    name="t",
    queue="q",
    args=b"[[],{}]",
    encoder="json",
    enqueued_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
)

USUAL: Final = Envelope(
    id="018f8e2c-7a3b-7c4d-8e5f-0123456789ab",
    name="tasks.email",
    queue="mail",
    args=b'[[],{"to":"ops@example.com"}]',
    encoder="json",
    enqueued_at=datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC),
    headers={"tenant": "acme"},
    meta={"requested_by": "finance"},
    priority=5,
    max_retries=3,
)

FULL: Final = Envelope(
    id="018f8e2c-7a3b-7c4d-8e5f-0123456789ac",
    name="reports.généré",
    queue="reports/long queue",
    args=bytes(range(256)),
    encoder="cbor+zstd+aes-gcm",
    enqueued_at=datetime(2026, 1, 2, 3, 4, 5, 1, tzinfo=UTC),
    headers={"tenant": "acme", "traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"},
    meta={
        "none": None,
        "flags": [True, False],
        "ints": [0, 127, 128, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**64 - 1],
        "negative": [-1, -32, -33, -128, -129, -32_768, -32_769, -(2**31), -(2**31) - 1, -(2**63)],
        "floats": [0.0, 1.5, -2.0, 1e300, 5e-324],
        "text": ["", "é", "日本", "\x00", "x" * 40],
        "deep": {"a": {"b": [{"c": []}]}},
        "wide": list(range(20)),
    },
    not_before=datetime(2026, 6, 1, tzinfo=UTC),
    delay=2.5,
    expires=datetime(2600, 1, 1, tzinfo=UTC),
    priority=9,
    max_retries=300,
    retry_policy=TaskRetryPolicy(
        backoff=True,
        backoff_max=600.0,
        jitter=False,
        default_delay=2.0,
        max_retries=5,
        auto_retry_for=("builtins.OSError",),
        dont_auto_retry_for=("builtins.ConnectionError", "app.errors.Fatal"),
    ),
    soft_time_limit=10.0,
    time_limit=20.0,
    visibility_timeout=30.5,
    acks_late=False,
    result_encoder="msgpack+gzip",
    result_ttl=3600.0,
    ignore_result=True,
    shadow="Monthly report",
    route={"exchange": "reports", "routing_key": "monthly"},
    parent="parent-1",
    root="root-1",
    limits=Limits(
        rate_limit="10/s",
        group_rate_limit="100/m",
        group_rate_key="acme",
        rate_limiter_failure_mode="closed",
        max_concurrency=4,
        concurrency_key="reports",
    ),
    unique="reports.généré:1",
    group="group-1",
    input=Input(kind="one", task="task-1", group="group-0"),
    on_success=(seal(MINIMAL, namespace="stem"), b""),
    on_failure=(b"\x00",),
    on_end=(b"\xff" * 300,),
)

VALUE: Final = [
    [1, -1, 2.5, "é", None, True],
    {"to": "ops@example.com", "lines": [{"price": "10.50"}], "b": {}, "aa": []},
]


def _case(
    name: str, envelope: Envelope, kind: str = "", *, namespace: str = "stem", cosign: bool = False
) -> dict[str, Any]:
    by = signer(kind, cosign=cosign) if kind else None
    sealed = seal(envelope, namespace=namespace, signer=by)
    parts = unpack(sealed)
    return {
        "name": name,
        "namespace": namespace,
        "envelope": shown(envelope),
        "signatures": [
            {"algorithm": each.algorithm, "key_id": each.key_id, "signature": each.signature.hex()}
            for each in parts.signatures
        ],
        "inner": parts.inner.hex(),
        "sealed": sealed.hex(),
    }


def shown(envelope: Envelope) -> dict[str, Any]:
    """An envelope as JSON shows it: fields at their default left out, bytes as hex, instants as text."""
    fields = msgspec.to_builtins(envelope, builtin_types=(bytes,))
    found: Any = _hex(fields)
    return dict(found)


def _hex(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list | tuple):
        return [_hex(each) for each in value]
    return {key: _hex(each) for key, each in value.items()} if isinstance(value, dict) else value


def _refused() -> list[dict[str, str]]:
    plain, signed = seal(USUAL, namespace="stem"), seal(USUAL, namespace="stem", signer=signer("hmac-sha256"))
    parts = unpack(signed)
    again = pack([*parts.signatures, *parts.signatures], parts.inner)
    inner = unpack(plain).inner
    head = b"STM\x01\x00"

    def framed(content: bytes) -> bytes:
        return head + len(content).to_bytes(4, "big") + content

    unknown = bytes([inner[0] + 1]) + inner[1:] + b"\xa7unknown\x01"
    repeated = bytes([inner[0] + 1]) + inner[1:] + b"\xabmax_retries\x03"
    written_out = bytes([inner[0] + 1]) + inner[1:] + b"\xa5delay\xcb" + bytes(8)
    long_head = b"\xde\x00" + bytes([inner[0] & 15]) + inner[1:]
    longer = inner.replace(b"\xa8priority\x05", b"\xa8priority\xcc\x05")
    cases = {
        "another first byte": b"X" + plain[1:],
        "version 2": b"STM\x02" + plain[4:],
        "three signatures": b"STM\x01\x03" + plain[5:],
        "a byte more": plain + b"\x00",
        "a byte less": plain[:-1],
        "an unknown field": framed(unknown),
        "a field twice": framed(repeated),
        "a default written out": framed(written_out),
        "an int in more bytes than it needs": framed(longer),
        "a map head longer than needed": framed(long_head),
        "two signatures by one key": again,
        "a priority of 10": framed(inner.replace(b"\xa8priority\x05", b"\xa8priority\x0a")),
        "not a map": framed(b"\x90"),
    }
    return [{"name": name, "sealed": data.hex()} for name, data in cases.items()]


def build() -> dict[str, Any]:
    """The whole file."""
    return {
        "format": 1,
        "purpose": ENVELOPE_PURPOSE,
        "keys": {
            "hmac-sha256": {id: material.hex() for id, material in SECRETS.items()},
            "ed25519-private": {id: material.hex() for id, material in SEEDS.items()},
            "ed25519-public": {id: _public(material).hex() for id, material in SEEDS.items()},
        },
        "vectors": [
            _case("minimal, unsigned", MINIMAL),
            _case("usual, unsigned", USUAL),
            _case("every field, unsigned", FULL),
            _case("minimal, hmac-sha256", MINIMAL, "hmac-sha256"),
            _case("usual, hmac-sha256, another namespace", USUAL, "hmac-sha256", namespace="éprouvette"),
            _case("every field, hmac-sha256", FULL, "hmac-sha256"),
            _case("usual, two hmac-sha256 signatures", USUAL, "hmac-sha256", cosign=True),
            _case("usual, ed25519", USUAL, "ed25519"),
            _case("every field, ed25519", FULL, "ed25519"),
            _case("usual, two ed25519 signatures", USUAL, "ed25519", cosign=True),
        ],
        "refused": _refused(),
        "payloads": [
            {"encoder": each.id, "value": VALUE, "bytes": each.encode(VALUE).hex()}
            for each in (JsonEncoder(), CborEncoder(), MsgpackEncoder())
        ],
    }


def _public(seed: bytes) -> bytes:
    from stem_signing.ed25519 import public_of

    return public_of(seed)


if __name__ == "__main__":
    FILE.write_text(json.dumps(build(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
