"""The contract a signer's tests subclass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import hypothesis.strategies as st
import pytest
from hypothesis import given

from stem_core.contracts.laws import LawBroken, broken, check
from stem_core.contracts.profile import Profile, choose
from stem_core.errors import ConfigurationError, SignatureInvalid
from stem_core.ports.signer import KeyScope, PayloadSigner, SignatureBlock
from stem_core.ports.specs import SignerSpec

__all__ = ["SignerContract"]

PURPOSE, NAMESPACE, PAYLOAD = "stem-envelope-v1", "stem", b"\0the payload\xff"


class SignerContract:
    """Laws 50 to 52. Subclass it, set ``spec`` and ``environment`` (with a signing key)::

        class TestMySigner(SignerContract):
            spec = MY_SIGNER
            environment = {"STEM_SIGNING_KEYS": ...}

    - ``rotated``: the environment after a rotation: it signs with another key and still trusts the old one.
    - ``retired``: the environment after the old key is gone.
    - ``verify_only``: an environment that verifies what ``environment`` signs, and cannot sign.
    """

    spec: ClassVar[SignerSpec]
    environment: ClassVar[Mapping[str, str]] = {}
    rotated: ClassVar[Mapping[str, str] | None] = None
    retired: ClassVar[Mapping[str, str] | None] = None
    verify_only: ClassVar[Mapping[str, str] | None] = None
    profile: ClassVar[str | Profile | None] = None

    @property
    def budget(self) -> Profile:
        return choose(self.profile)

    @pytest.fixture
    def signer(self) -> PayloadSigner:
        return self.spec.open(self.environment)

    def sign(self, signer: PayloadSigner, payload: bytes = PAYLOAD) -> list[SignatureBlock]:
        return list(signer.sign(PURPOSE, NAMESPACE, payload, queue="queue", task="task"))

    def verified(
        self,
        signer: PayloadSigner,
        blocks: list[SignatureBlock],
        law: int,
        what: str,
        payload: bytes = PAYLOAD,
    ) -> KeyScope:
        try:
            return signer.verify(PURPOSE, NAMESPACE, payload, blocks)
        except SignatureInvalid as error:
            raise LawBroken(law, f"{what} was refused: {error}") from error

    def test_law_50_a_signature_verifies(self, signer: PayloadSigner) -> None:
        other = self.spec.open(self.environment)

        @self.budget.property()
        @given(st.binary(max_size=300))
        def law(payload: bytes) -> None:
            blocks = self.sign(signer, payload)
            check(1 <= len(blocks) <= 2, 50, f"{len(blocks)} signatures")
            for block in blocks:
                for label in (block.algorithm, block.key_id):
                    check(
                        label.isascii() and 1 <= len(label) <= 64, 50, f"{label!r} is not 1 to 64 ASCII bytes"
                    )
            scope = self.verified(other, blocks, 50, "a signature of its own", payload)
            check(scope.key_id in {block.key_id for block in blocks}, 50, f"{scope} is of none of {blocks}")

        law()

    def test_law_50_any_changed_bit_of_the_payload_does_not(self, signer: PayloadSigner) -> None:
        blocks = self.sign(signer)
        for bit in range(len(PAYLOAD) * 8):
            self._refused(signer, _flipped(PAYLOAD, bit), blocks, f"bit {bit} of the payload")
        for payload in (b"", PAYLOAD[:-1], PAYLOAD + b"\0", b"\0" + PAYLOAD):
            self._refused(signer, payload, blocks, f"the payload {payload!r}")

    def test_law_50_any_changed_bit_of_the_signature_does_not(self, signer: PayloadSigner) -> None:
        blocks = self.sign(signer)
        for place, block in enumerate(blocks):
            for bit in range(len(block.signature) * 8):
                changed = SignatureBlock(block.algorithm, block.key_id, _flipped(block.signature, bit))
                self._refused(signer, PAYLOAD, [changed], f"bit {bit} of signature {place}")
            for signature in (
                b"",
                block.signature[:-1],
                block.signature + b"\0",
                bytes(len(block.signature)),
            ):
                self._refused(signer, PAYLOAD, [SignatureBlock(block.algorithm, block.key_id, signature)],
                              f"the signature {signature[:8]!r}... of {len(signature)} bytes")  # fmt: skip
        self._refused(signer, PAYLOAD, [], "no signature")

    def test_law_50_any_changed_label_does_not(self, signer: PayloadSigner) -> None:
        for block in self.sign(signer):
            for bit in range(len(block.key_id) * 8):
                if bit % 8 < 7:  # stays ASCII
                    key_id = _flipped(block.key_id.encode(), bit).decode()
                    self._refused(signer, PAYLOAD, [SignatureBlock(block.algorithm, key_id, block.signature)],
                                  f"the key id {key_id!r} for {block.key_id!r}")  # fmt: skip
            for algorithm in ("", "none", block.algorithm.upper(), block.algorithm + "x", "\udcff"):
                if algorithm != block.algorithm:
                    self._refused(signer, PAYLOAD, [SignatureBlock(algorithm, block.key_id, block.signature)],
                                  f"the algorithm {algorithm!r} for {block.algorithm!r}")  # fmt: skip

    def test_law_50_purpose_and_namespace_are_signed(self, signer: PayloadSigner) -> None:
        blocks = self.sign(signer)
        for purpose, namespace in (
            (PURPOSE + "x", NAMESPACE),
            (PURPOSE, NAMESPACE + "x"),
            (PURPOSE[:-1], PURPOSE[-1] + NAMESPACE),
            (NAMESPACE, PURPOSE),
            ("", NAMESPACE),
            (PURPOSE, ""),
        ):
            try:
                signer.verify(purpose, namespace, PAYLOAD, blocks)
            except SignatureInvalid:
                continue
            broken(50, f"signed for {PURPOSE!r}, {NAMESPACE!r} and accepted for {purpose!r}, {namespace!r}")

    def test_law_50_one_good_signature_is_enough(self, signer: PayloadSigner) -> None:
        """So that a rotation can sign with both keys; a bad one beside it neither helps nor hurts."""
        good = self.sign(signer)[0]
        unknown = SignatureBlock(good.algorithm, "nobody", good.signature)
        for blocks in ([good, unknown], [unknown, good]):
            scope = self.verified(signer, blocks, 50, "a good signature beside a bad one")
            check(scope.key_id == good.key_id, 50, f"verified by {scope.key_id!r}, it is by {good.key_id!r}")

    def test_law_51_keys_rotate(self, signer: PayloadSigner) -> None:
        if self.rotated is None:
            pytest.skip("not given: rotated")
        after = self.spec.open(self.rotated)
        old, new = self.sign(signer), self.sign(after)
        self.verified(after, old, 51, "the old key's signature after a rotation")
        self.verified(after, new, 51, "the new key's signature after a rotation")
        check(
            {b.key_id for b in new} != {b.key_id for b in old}, 51, "a rotation signs with the same key only"
        )
        if self.retired is not None:
            last = self.spec.open(self.retired)
            self.verified(last, new, 51, "the new key's signature after the old one retired")
            self._refused(
                last, PAYLOAD, [b for b in old if b.key_id not in {n.key_id for n in new}], "a retired key"
            )

    def test_law_51_who_can_verify_need_not_sign(self, signer: PayloadSigner) -> None:
        if self.verify_only is None:
            pytest.skip("not given: verify_only")
        reader = self.spec.open(self.verify_only)
        self.verified(reader, self.sign(signer), 51, "a signature, where it can only be verified,")
        with pytest.raises(ConfigurationError):
            self.sign(reader)

    def test_law_52_a_key_serves_one_algorithm(self, signer: PayloadSigner) -> None:
        for block in self.sign(signer):
            for algorithm in ("hmac-sha256", "ed25519", "hmac-sha512", "none"):
                if algorithm != block.algorithm:
                    self._refused(signer, PAYLOAD, [SignatureBlock(algorithm, block.key_id, block.signature)],
                                  f"key {block.key_id!r} of {block.algorithm} as {algorithm}")  # fmt: skip

    def test_law_52_without_keys_there_is_no_signer(self) -> None:
        with pytest.raises(ConfigurationError):
            self.spec.open({}).sign(PURPOSE, NAMESPACE, PAYLOAD, queue="queue", task="task")

    def _refused(
        self, signer: PayloadSigner, payload: bytes, blocks: list[SignatureBlock], what: str
    ) -> None:
        try:
            signer.verify(PURPOSE, NAMESPACE, payload, blocks)
        except SignatureInvalid:
            return
        except Exception as error:
            raise LawBroken(50, f"{what} raised {error!r}; it must be SignatureInvalid") from error
        broken(50, f"{what} was accepted")


def _flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
