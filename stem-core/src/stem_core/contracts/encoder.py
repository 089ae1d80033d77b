"""The contract an encoder's tests subclass."""

from __future__ import annotations

import random
import time
import tracemalloc
from collections.abc import Mapping
from typing import Any, ClassVar

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from stem_core.contracts.laws import LawBroken, broken, check
from stem_core.contracts.profile import Profile, choose
from stem_core.contracts.strategies import plain, same
from stem_core.errors import DecodeError, EncodeError
from stem_core.ports.encoder import ContextPayloadEncoder, EncodeContext, PayloadEncoder, TaskPayloadEncoder
from stem_core.ports.specs import EncoderSpec

__all__ = ["EncoderContract"]

CONTEXT = EncodeContext(
    purpose="args", namespace="stem", id="id-1", chain="json+x", name="task", queue="queue"
)
OTHERS = (
    EncodeContext(purpose="result", namespace="stem", id="id-1", chain="json+x", name="task", queue="queue"),
    EncodeContext(purpose="args", namespace="other", id="id-1", chain="json+x", name="task", queue="queue"),
    EncodeContext(purpose="args", namespace="stem", id="id-2", chain="json+x", name="task", queue="queue"),
    EncodeContext(purpose="args", namespace="stem", id="id-1", chain="cbor+x", name="task", queue="queue"),
    EncodeContext(purpose="args", namespace="stem", id="id-1", chain="json+x", name="other", queue="queue"),
    EncodeContext(purpose="args", namespace="stem", id="id-1", chain="json+x", name="task", queue="other"),
)


class EncoderContract:
    """Laws 40 to 42. Subclass it and set ``spec``; a few more are optional:

    - ``environment``: what ``spec.open`` gets, keys say.
    - ``domain``: a strategy of the values it documents to carry exactly; plain data for a value encoder
      (without bytes unless it has them), bytes for a bytes encoder.
    - ``deterministic``: equal values give equal bytes (False where a nonce is used).
    - ``outside``: values that must be an ``EncodeError``.
    - ``seconds``, ``memory``: bounds of decoding anything hostile of up to 256 KiB (5 s, 64 MiB).
    """

    spec: ClassVar[EncoderSpec]
    environment: ClassVar[Mapping[str, str]] = {}
    domain: ClassVar[st.SearchStrategy[Any] | None] = None
    deterministic: ClassVar[bool] = True
    outside: ClassVar[tuple[Any, ...]] = (object(), lambda: None)
    profile: ClassVar[str | Profile | None] = None
    seconds: ClassVar[float] = 5.0
    memory: ClassVar[int] = 64 * 1024 * 1024

    @property
    def budget(self) -> Profile:
        return choose(self.profile)

    @pytest.fixture
    def encoder(self) -> PayloadEncoder:
        return self.spec.open(self.environment)

    def values(self) -> st.SearchStrategy[Any]:
        """``domain``, or what belongs to the kind."""
        if self.domain is not None:
            return self.domain
        return plain if self.spec.kind == "value" else st.binary(max_size=200)

    def encode(self, encoder: PayloadEncoder, value: Any, context: EncodeContext = CONTEXT) -> bytes:
        if isinstance(encoder, ContextPayloadEncoder):
            return encoder.encode(value, context)
        return encoder.encode(value)

    def decode(self, encoder: PayloadEncoder, data: bytes, context: EncodeContext = CONTEXT) -> object:
        if isinstance(encoder, ContextPayloadEncoder):
            return encoder.decode(data, context)
        return encoder.decode(data)

    def test_law_40_what_is_decoded_is_what_was_encoded(self, encoder: PayloadEncoder) -> None:
        """Exactly: of the same types, whoever decodes."""
        other = self.spec.open(self.environment)

        @self.budget.property()
        @given(self.values())
        def law(value: Any) -> None:
            data = self.encode(encoder, value)
            check(type(data) is bytes, 40, f"{value!r} was encoded as a {type(data).__name__}")
            try:
                found = self.decode(other, data)
            except Exception as error:
                raise LawBroken(40, f"the bytes of {value!r} raised {error!r}") from error
            check(same(found, value), 40, f"{value!r} was decoded as {found!r}")

        law()

    def test_law_40_equal_values_give_equal_bytes_where_it_says_so(self, encoder: PayloadEncoder) -> None:
        other = self.spec.open(self.environment)

        @self.budget.property(100)
        @given(self.values())
        def law(value: Any) -> None:
            ways = {self.encode(each, value) for each in (encoder, other, encoder, other)}
            if self.deterministic:
                check(len(ways) == 1, 40, f"{value!r} was encoded in {len(ways)} ways: {ways}")

        law()

    def test_law_40_what_is_outside_its_domain_is_refused(self, encoder: PayloadEncoder) -> None:
        deep: list[Any] = []
        deep.append(deep)
        outside = (*self.outside, deep) if self.spec.kind == "value" else ("text", None, 7)
        for value in outside:
            try:
                data = self.encode(encoder, value)
            except EncodeError:
                continue
            except Exception as error:
                raise LawBroken(40, f"{type(value)} raised {error!r}; it must be an EncodeError") from error
            broken(40, f"{type(value)} is outside the domain and was encoded as {data[:40]!r}")

    def test_law_40_the_spec_is_true(self, encoder: PayloadEncoder) -> None:
        check(encoder.id == self.spec.id, 40, f"the spec says {self.spec.id!r}, the encoder {encoder.id!r}")
        check(
            encoder.kind == self.spec.kind,
            40,
            f"the spec says {self.spec.kind!r}, the encoder {encoder.kind!r}",
        )
        kind = ContextPayloadEncoder if self.spec.context else TaskPayloadEncoder
        check(
            isinstance(encoder, kind), 40, f"the spec says context={self.spec.context}, it is {type(encoder)}"
        )

    def test_law_41_any_bytes_decode_or_raise_decode_error(self, encoder: PayloadEncoder) -> None:
        @self.budget.property()
        @given(st.binary(max_size=64))
        @example(b"")
        @example(b"\0")
        @example(b"\xff" * 40)
        def law(data: bytes) -> None:
            self._decodes_or_refuses(encoder, data)

        law()

    def test_law_41_damaged_bytes_decode_or_raise_decode_error(self, encoder: PayloadEncoder) -> None:
        """Real bytes with one place changed, cut or doubled go deeper than noise."""

        @self.budget.property()
        @given(self.values(), st.randoms(use_true_random=False))
        def law(value: Any, chance: random.Random) -> None:
            data = self.encode(encoder, value)
            for _ in range(8):
                place, damaged = chance.randrange(len(data) + 1), bytearray(data)
                match chance.randrange(4):
                    case 0 if place < len(data):
                        damaged[place] ^= 1 << chance.randrange(8)
                    case 1:
                        del damaged[place:]
                    case 2:
                        damaged[place:place] = bytes([chance.randrange(256)])
                    case _:
                        damaged += data
                self._decodes_or_refuses(encoder, bytes(damaged))

        law()

    @pytest.mark.parametrize("shape", ["nested", "long", "zeros", "ones", "repeated", "bomb"])
    def test_law_41_hostile_bytes_cost_little(self, encoder: PayloadEncoder, shape: str) -> None:
        size = 256 * 1024
        real = self.encode(encoder, b"x" * 100 if self.spec.kind == "bytes" else [1])
        samples = {
            "nested": [bytes([each]) * size for each in (0x5B, 0x7B, 0x81, 0x91, 0x9F, 0xBF, 0xDD)],
            "long": [head + b"\xff" * 8 + real for head in (b"\x9b", b"\xbb", b"\xdd", b"\xdf", b"\x5b", b"\xc6", b"9" * 5000)],
            "zeros": [bytes(size)],
            "ones": [b"\xff" * size],
            "repeated": [real * (size // len(real))],
            "bomb": [],
        }  # fmt: skip
        if shape == "bomb" and self.spec.kind == "bytes":  # little that becomes more than the bound
            try:
                bomb = self.encode(encoder, bytes(2 * self.memory))
            except EncodeError:
                return
            samples["bomb"] = [bomb] if len(bomb) <= size else []
        for data in samples[shape]:
            tracemalloc.start()
            try:
                start = time.thread_time()
                self._decodes_or_refuses(encoder, data)
                used = time.thread_time() - start
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            check(
                used < self.seconds,
                41,
                f"{data[:12]!r}... ({len(data)} bytes) took {used:.1f} s of the processor",
            )
            check(peak < self.memory, 41, f"{data[:12]!r}... ({len(data)} bytes) took {peak >> 20} MiB")

    def _decodes_or_refuses(self, encoder: PayloadEncoder, data: bytes) -> None:
        try:
            self.decode(encoder, data)
        except DecodeError:
            pass
        except Exception as error:
            raise LawBroken(41, f"{data[:60]!r} raised {error!r}; it must be a DecodeError") from error

    def test_law_41_bytes_are_bound_to_their_context(self, encoder: PayloadEncoder) -> None:
        """What was made for one task, purpose, namespace or chain is refused for another."""
        if not self.spec.context:
            pytest.skip("not declared: context")
        value = b"value" if self.spec.kind == "bytes" else ["value"]
        data = self.encode(encoder, value)
        for context in OTHERS:
            try:
                found = self.decode(encoder, data, context)
            except DecodeError:
                continue
            broken(41, f"made for {CONTEXT} and decoded for {context} as {found!r}")

    def test_law_42_it_composes(self, encoder: PayloadEncoder) -> None:
        """A bytes encoder carries what any encoder makes, itself too; in order, and back."""
        if self.spec.kind == "value":
            data = self.encode(encoder, [1, "a", None])
            check(
                same(self.decode(encoder, bytes(bytearray(data))), [1, "a", None]),
                42,
                "a copy of its bytes differs",
            )
            return
        layers = [b"", b"payload" * 50, bytes(range(256))]
        for payload in layers:
            twice = self.encode(encoder, self.encode(encoder, payload))
            try:
                found = self.decode(encoder, self.decode(encoder, twice))  # type: ignore[arg-type]
            except DecodeError as error:
                raise LawBroken(42, f"{payload[:20]!r} through it twice raised {error!r}") from error
            check(same(found, payload), 42, f"{payload[:20]!r} through it twice came back as {found!r}")
