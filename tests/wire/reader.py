"""A second reader of wire format 1, written from docs/wire-format.md with the standard library alone.

It imports nothing of Stem. Instants become text, bytes become hex, as docs/wire-vectors.json shows them.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

PURPOSE: Final = b"stem-envelope-v1"
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
ORDER: Final = [
    "id",
    "name",
    "queue",
    "args",
    "encoder",
    "enqueued_at",
    "headers",
    "meta",
    "not_before",
    "delay",
    "expires",
    "priority",
    "max_retries",
    "retry_policy",
    "soft_time_limit",
    "time_limit",
    "visibility_timeout",
    "acks_late",
    "result_encoder",
    "result_ttl",
    "ignore_result",
    "shadow",
    "route",
    "parent",
    "root",
    "limits",
    "unique",
    "group",
    "input",
    "on_success",
    "on_failure",
    "on_end",
]
NESTED: Final = {
    "retry_policy": [
        "backoff",
        "backoff_max",
        "jitter",
        "default_delay",
        "max_retries",
        "auto_retry_for",
        "dont_auto_retry_for",
    ],
    "limits": (
        [
            "rate_limit",
            "group_rate_limit",
            "group_rate_key",
            "rate_limiter_failure_mode",
            "max_concurrency",
            "concurrency_key",
        ]
    ),
    "input": ["kind", "task", "group"],
}
DEFAULTS: Final[dict[str, Any]] = {
    **dict.fromkeys(ORDER[6:]),
    "headers": {},
    "meta": {},
    "route": {},
    "on_success": [],
    "on_failure": [],
    "on_end": [],
    "delay": 0.0,
    "priority": 0,
    "max_retries": 0,
    "acks_late": True,
    "result_ttl": 86400.0,
    "ignore_result": False,
}


class Refused(Exception):
    """These bytes are not wire format 1, or no trusted signature verifies."""


class Reader:
    """A position in bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, count: int) -> bytes:
        part = self.data[self.at : self.at + count]
        if len(part) < count:
            raise Refused("ends too early")
        self.at += count
        return part

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "big")


def open_message(
    sealed: bytes, namespace: str, secrets: Mapping[str, bytes] | None, publics: Mapping[str, bytes] | None
) -> dict[str, Any]:
    """The fields of a message. Without keys it must be unsigned; with keys a signature must verify."""
    reader = Reader(sealed)
    if reader.take(4) != b"STM\x01":
        raise Refused("not version 1")
    count, length = reader.number(1), reader.number(4)
    if count > 2:
        raise Refused("too many signatures")
    blocks = [
        (reader.take(reader.number(1)), reader.take(reader.number(1)), reader.take(reader.number(2)))
        for _ in range(count)
    ]
    if len({block[:2] for block in blocks}) < count:
        raise Refused("one key twice")
    inner = reader.data[reader.at :]
    if len(inner) != length:
        raise Refused("another length")
    if secrets or publics:
        if not any(verifies(block, namespace, inner, secrets or {}, publics or {}) for block in blocks):
            raise Refused("no trusted signature")
    elif blocks:
        raise Refused("signed, and no key given")
    return fields_of(inner)


def covered(algorithm: bytes, key_id: bytes, namespace: str, inner: bytes) -> bytes:
    """The pre-authentication encoding of section 2."""
    parts = [PURPOSE, algorithm, key_id, namespace.encode(), inner]
    return struct.pack("<Q", len(parts)) + b"".join(struct.pack("<Q", len(part)) + part for part in parts)


def verifies(
    block: tuple[bytes, bytes, bytes],
    namespace: str,
    inner: bytes,
    secrets: Mapping[str, bytes],
    publics: Mapping[str, bytes],
) -> bool:
    """Whether one block is by a trusted key and right."""
    algorithm, key_id, signature = block
    message = covered(algorithm, key_id, namespace, inner)
    if algorithm == b"hmac-sha256" and key_id.decode() in secrets:
        expected = hmac.new(secrets[key_id.decode()], message, hashlib.sha256).digest()
        return hmac.compare_digest(expected, signature)
    return (
        algorithm == b"ed25519"
        and key_id.decode() in publics
        and ed25519(publics[key_id.decode()], message, signature)
    )


def fields_of(inner: bytes) -> dict[str, Any]:
    """The map of section 3, its form checked."""
    reader = Reader(inner)
    found = item(reader, top=True)
    if reader.at != len(inner) or not isinstance(found, dict):
        raise Refused("not one map")
    in_order(found, ORDER)
    for name, order in NESTED.items():
        in_order(found.get(name, {}), order)
    if any(name not in found for name in ORDER[:6]):
        raise Refused("a required field is missing")
    for name, value in found.items():
        if name in DEFAULTS and value == DEFAULTS[name] and type(value) is type(DEFAULTS[name]):
            raise Refused(f"{name} is at its default")
    if not 0 <= found.get("priority", 0) <= 9:
        raise Refused("priority")
    return found


def in_order(found: Mapping[str, Any], order: list[str]) -> None:
    """Only known fields, in their order."""
    places = [order.index(name) if name in order else -1 for name in found]
    if -1 in places or places != sorted(places):
        raise Refused("unknown field, or out of order")


def item(reader: Reader, *, top: bool = False) -> Any:
    """One MessagePack value in the forms of section 3."""
    head = reader.number(1)
    if head <= 0x7F:
        return head
    if head >= 0xE0:
        return head - 256
    if head <= 0x8F:
        return mapping(reader, head & 15, top=top)
    if head <= 0x9F:
        return [item(reader) for _ in range(head & 15)]
    if head <= 0xBF:
        return reader.take(head & 31).decode()
    return longer(reader, head)


def longer(reader: Reader, head: int) -> Any:
    """The forms with a byte of their own, each refused when a shorter one would do."""
    if head in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[head]
    if head == 0xCB:
        return struct.unpack("!d", reader.take(8))[0]
    if 0xCC <= head <= 0xCF:
        size = 1 << (head - 0xCC)
        return at_least(reader.number(size), 128 if size == 1 else 1 << 4 * size)
    if 0xD0 <= head <= 0xD3:
        size = 1 << (head - 0xD0)
        return -at_least(
            (1 << 8 * size) - reader.number(size), 33 if size == 1 else (1 << (4 * size - 1)) + 1
        )
    if 0xC4 <= head <= 0xC6:
        size = 1 << (head - 0xC4)
        return reader.take(at_least(reader.number(size), 0 if size == 1 else 1 << 4 * size)).hex()
    if 0xD9 <= head <= 0xDB:
        size = 1 << (head - 0xD9)
        return reader.take(at_least(reader.number(size), 32 if size == 1 else 1 << 4 * size)).decode()
    if head in (0xDC, 0xDD):
        return [
            item(reader)
            for _ in range(at_least(reader.number(2 if head == 0xDC else 4), 16 if head == 0xDC else 65_536))
        ]
    if head in (0xDE, 0xDF):
        return mapping(
            reader,
            at_least(reader.number(2 if head == 0xDE else 4), 16 if head == 0xDE else 65_536),
            top=True,
        )
    return instant(reader, head)


def mapping(reader: Reader, count: int, *, top: bool = False) -> dict[str, Any]:
    """A map with text keys, none twice."""
    found: dict[str, Any] = {}
    for _ in range(count):
        key = item(reader)
        if not isinstance(key, str) or key in found:
            raise Refused("a key twice, or not text")
        found[key] = item(reader)
    return found


def instant(reader: Reader, head: int) -> str:
    """The timestamp extension, as text."""
    size = {0xD6: 4, 0xD7: 8, 0xC7: 12}.get(head)
    if size is None or (head == 0xC7 and reader.number(1) != 12) or reader.number(1) != 0xFF:
        raise Refused("an extension that is no timestamp")
    if size == 4:
        seconds, nanoseconds = reader.number(4), 0
    elif size == 8:
        both = reader.number(8)
        seconds, nanoseconds = both & (1 << 34) - 1, both >> 34
    else:
        nanoseconds = reader.number(4)
        seconds = int.from_bytes(reader.take(8), "big", signed=True)
    moment = EPOCH + timedelta(seconds=seconds, microseconds=nanoseconds // 1000)
    return moment.isoformat().replace("+00:00", "Z")


def at_least(value: int, least: int) -> int:
    if value < least:
        raise Refused("a longer form than needed")
    return value


# Ed25519 verification: RFC 8032, section 5.1.7, with affine points. Slow, and plain to read.

P: Final = 2**255 - 19
L: Final = 2**252 + 27742317777372353535851937790883648493
D: Final = -121665 * pow(121666, P - 2, P) % P
Point = tuple[int, int]


def add(a: Point, b: Point) -> Point:
    (x1, y1), (x2, y2) = a, b
    both = D * x1 * x2 * y1 * y2
    x = (x1 * y2 + x2 * y1) * pow(1 + both, P - 2, P)
    y = (y1 * y2 + x1 * x2) * pow(1 - both, P - 2, P)
    return x % P, y % P


def multiply(scalar: int, point: Point) -> Point:
    result: Point = (0, 1)
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point = add(point, point)
        scalar >>= 1
    return result


def point_of(encoded: bytes) -> Point:
    number = int.from_bytes(encoded, "little")
    sign, y = number >> 255, number & (1 << 255) - 1
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    if y >= P or (x * x - square) % P:
        raise Refused("not a point")
    return (P - x if x & 1 != sign else x), y


BASE: Final = point_of((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def ed25519(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether ``signature`` is by ``public``'s owner over ``message``."""
    if len(signature) != 64:
        return False
    r, s = signature[:32], int.from_bytes(signature[32:], "little")
    k = int.from_bytes(hashlib.sha512(r + public + message).digest(), "little") % L
    return s < L and multiply(s, BASE) == add(point_of(r), multiply(k, point_of(public)))
