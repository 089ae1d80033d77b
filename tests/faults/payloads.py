"""Faults of laws 40 to 42 and 50 to 52."""

from __future__ import annotations

import hashlib
import hmac
import json
import random
import zlib
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st

from stem_core.builtin.json_encoder import JsonEncoder
from stem_core.builtin.plugin import JSON
from stem_core.contracts import EncoderContract, SignerContract
from stem_core.errors import ConfigurationError, DecodeError, EncodeError, SignatureInvalid
from stem_core.ports.encoder import ContextPayloadEncoder, TaskPayloadEncoder
from stem_core.ports.signer import KeyScope, SignatureBlock, pre_authentication_encoding
from stem_core.ports.specs import EncoderSpec, SignerSpec
from tests.faults.harness import broken

# encoders


def encoder(kind: Any) -> dict[str, Any]:
    return {"spec": replace(JSON, open=lambda environment: kind())}


class Zip(TaskPayloadEncoder):
    """Compression, done right: a bound on what comes out."""

    id = "zip"
    kind = "bytes"
    most = 4 * 1024 * 1024

    def encode(self, value):
        if not isinstance(value, bytes):
            raise EncodeError(f"{type(value)} is not bytes")
        return zlib.compress(value)

    def decode(self, data):
        try:
            stream = zlib.decompressobj()
            value = stream.decompress(data, self.most)
        except zlib.error as error:
            raise DecodeError(str(error)) from error
        if not stream.eof or stream.unused_data or stream.unconsumed_tail:
            raise DecodeError("not one whole stream")
        return value


class Bound(ContextPayloadEncoder):
    """Bound to everything in the context, done right (and no secret)."""

    id = "bound"

    def tag(self, data, context):
        return hashlib.sha256(repr(context).encode() + data).digest()

    def encode(self, value, context):
        if not isinstance(value, bytes):
            raise EncodeError(f"{type(value)} is not bytes")
        return self.tag(value, context) + value

    def decode(self, data, context):
        if len(data) < 32 or data[:32] != self.tag(data[32:], context):
            raise DecodeError("not of this context")
        return data[32:]


def packed(kind: Any, **fields: Any) -> dict[str, Any]:
    return {
        "spec": EncoderSpec(
            id=kind.id, kind="bytes", contract=1, summary="", open=lambda environment: kind(), **fields
        )
    }


@broken(40, EncoderContract)
def ints_become_floats() -> Any:
    class E(JsonEncoder):
        def decode(self, data):
            super().decode(data)
            return json.loads(data, parse_int=float)

    return encoder(E)


@broken(40, EncoderContract)
def anything_becomes_text() -> Any:
    class E(JsonEncoder):
        def encode(self, value):
            return json.dumps(value, default=str, skipkeys=True).encode()

    return encoder(E)


@broken(40, EncoderContract)
def spaces_by_chance() -> Any:
    class E(JsonEncoder):
        def encode(self, value):
            return super().encode(value) + b" " * random.randrange(4)

    return encoder(E)


@broken(40, EncoderContract)
def text_is_ascii() -> Any:
    class E(JsonEncoder):
        def encode(self, value):
            return super().encode(value).decode().encode("ascii", "replace")

    return encoder(E)


@broken(41, EncoderContract)
def the_parsers_error_comes_through() -> Any:
    class E(JsonEncoder):
        def decode(self, data):
            return json.loads(data)

    return encoder(E)


@broken(41, EncoderContract)
def depth_is_the_interpreters() -> Any:
    """Everything but what a deep nesting raises is translated."""

    class E(JsonEncoder):
        def decode(self, data):
            try:
                return json.loads(data)
            except ValueError as error:
                raise DecodeError(str(error)) from error

    return {**encoder(E), "domain": st.integers(-5, 5)}


@broken(41, EncoderContract)
def a_bomb_is_unpacked() -> Any:
    class E(Zip):
        def decode(self, data):
            try:
                value = zlib.decompress(data)
            except zlib.error as error:
                raise DecodeError(str(error)) from error
            return value

    return {**packed(E), "memory": 32 * 1024 * 1024}


@broken(41, EncoderContract)
def whatever_follows_is_ignored() -> Any:
    """Decoding twice over: quadratic in what it cannot read."""

    class E(Zip):
        def decode(self, data):
            for start in range(0, len(data), 16):
                if data[start:].count(b"\x78\x9c") > len(data):
                    break
            return super().decode(data)

    return {**packed(E), "seconds": 0.2}


def bound(leave_out: str, name: str) -> None:
    def make() -> Any:
        class E(Bound):
            def tag(self, data, context):
                fields = {f: getattr(context, f) for f in context.__struct_fields__ if f != leave_out}
                return hashlib.sha256(repr(fields).encode() + data).digest()

        return packed(E, context=True)

    make.__name__ = name
    broken(41, EncoderContract)(make)


bound("purpose", "a_result_passes_for_arguments")
bound("namespace", "another_namespaces_bytes_decode")
bound("chain", "another_chains_bytes_decode")


@broken(42, EncoderContract)
def what_is_packed_is_not_packed_again() -> Any:
    """Sees its own header and takes the work for done; on the way back it unpacks twice."""

    class E(Zip):
        def encode(self, value):
            return value if isinstance(value, bytes) and value[:1] == b"\x78" else super().encode(value)

    return packed(E)


@broken(42, EncoderContract)
def unpacked_to_the_core() -> Any:
    """Undoes every layer of itself at once."""

    class E(Zip):
        def decode(self, data):
            value = super().decode(data)
            try:
                while True:
                    value = super().decode(value)
            except DecodeError:
                return value

    return packed(E)


# signers


class Signer:
    """HMAC-SHA256 with keys from the environment, done right: ``KEYS`` is ``id=secret,...``, the first signs."""

    algorithm = "hmac-sha256"

    def __init__(self, environment):
        pairs = [part.partition("=") for part in environment.get("KEYS", "").split(",") if part]
        self.keys = {id: secret.encode() for id, _, secret in pairs}
        self.active = next(iter(self.keys), None)
        if environment.get("VERIFY_ONLY"):
            self.active = None
        if not self.keys:
            raise ConfigurationError("KEYS is not set")

    def digest(self, purpose, key_id, namespace, payload):
        signed = pre_authentication_encoding(purpose, self.algorithm, key_id, namespace, payload)
        return hmac.digest(self.keys[key_id], signed, "sha256")

    def sign(self, purpose, namespace, payload, *, queue, task):
        if self.active is None:
            raise ConfigurationError("no signing key")
        return [
            SignatureBlock(self.algorithm, self.active, self.digest(purpose, self.active, namespace, payload))
        ]

    def verify(self, purpose, namespace, payload, signatures):
        for block in signatures:
            known = block.algorithm == self.algorithm and block.key_id in self.keys
            if known and self.same(block.signature, self.digest(purpose, block.key_id, namespace, payload)):
                return KeyScope(block.key_id)
        raise SignatureInvalid("no trusted signature")

    def same(self, one, other):
        return hmac.compare_digest(one, other)


def signer(kind: Any) -> dict[str, Any]:
    return {
        "spec": SignerSpec(id="hmac-sha256", contract=1, summary="", open=kind),
        "environment": {"KEYS": "one=secret-1"},
        "rotated": {"KEYS": "two=secret-2,one=secret-1"},
        "retired": {"KEYS": "two=secret-2"},
        "verify_only": {"KEYS": "one=secret-1", "VERIFY_ONLY": "1"},
    }


def signing(law: int, name: str, **methods: Any) -> None:
    def make() -> Any:
        return signer(type("S", (Signer,), methods))

    make.__name__ = name
    broken(law, SignerContract)(make)


def _fail_open(self, purpose, namespace, payload, signatures):
    """Nothing to verify is nothing to refuse."""
    return Signer.verify(self, purpose, namespace, payload, signatures) if signatures else KeyScope("")


def _without(field: str) -> Any:
    def digest(self, purpose, key_id, namespace, payload):
        values = {"purpose": purpose, "namespace": namespace, "payload": payload}
        values[field] = b"" if field == "payload" else ""
        return Signer.digest(self, values["purpose"], key_id, values["namespace"], values["payload"])

    return digest


def _joined(self, purpose, key_id, namespace, payload):
    """Concatenated without lengths: what moves between the parts is not seen."""
    return hmac.digest(self.keys[key_id], (purpose + namespace).encode() + payload, "sha256")


def _raises_key_error(self, purpose, namespace, payload, signatures):
    for block in signatures:
        if self.same(block.signature, self.digest(purpose, block.key_id, namespace, payload)):
            return KeyScope(block.key_id)
    raise SignatureInvalid("no trusted signature")


def _first_only(self, purpose, namespace, payload, signatures):
    return Signer.verify(self, purpose, namespace, payload, signatures[:1])


def _any_algorithm(self, purpose, namespace, payload, signatures):
    renamed = [SignatureBlock(self.algorithm, block.key_id, block.signature) for block in signatures]
    return Signer.verify(self, purpose, namespace, payload, renamed)


def _active_only(self, purpose, namespace, payload, signatures):
    mine = [block for block in signatures if block.key_id == (self.active or next(iter(self.keys)))]
    return Signer.verify(self, purpose, namespace, payload, mine)


_EVER: dict[str, bytes] = {}


def _never_forgets(self, environment):
    Signer.__init__(self, environment)
    _EVER.update(self.keys)
    self.keys = {**self.keys, **_EVER}


def _signs_anyway(self, environment):
    Signer.__init__(self, environment)
    self.active = next(iter(self.keys))


def _no_key_needed(self, environment):
    Signer.__init__(self, {"KEYS": "default=secret", **environment})


def _none_is_an_algorithm(self, purpose, namespace, payload, signatures):
    if signatures and signatures[0].algorithm == "none":
        return KeyScope(signatures[0].key_id)
    return Signer.verify(self, purpose, namespace, payload, signatures)


signing(50, "unsigned_is_accepted", verify=_fail_open)
signing(50, "half_of_the_signature_is_compared", same=lambda self, one, other: one[:16] == other[:16])
signing(50, "the_namespace_is_not_signed", digest=_without("namespace"))
signing(50, "the_purpose_is_not_signed", digest=_without("purpose"))
signing(50, "parts_are_joined_without_lengths", digest=_joined)
signing(50, "an_unknown_key_is_a_key_error", verify=_raises_key_error)
signing(50, "only_the_first_signature_counts", verify=_first_only)
signing(51, "only_the_active_key_is_trusted", verify=_active_only)
signing(51, "a_retired_key_is_trusted", __init__=_never_forgets)
signing(51, "who_verifies_can_sign", __init__=_signs_anyway)
signing(52, "any_algorithm_will_do", verify=_any_algorithm)
signing(52, "none_is_an_algorithm", verify=_none_is_an_algorithm)
signing(52, "there_is_a_default_key", __init__=_no_key_needed)
