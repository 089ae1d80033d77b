"""Payload encoders by id, and the chains they compose: ``"cbor+zstd+aes-gcm"``.

A chain is one value encoder (value to bytes) and any number of bytes encoders (bytes to bytes) after it. The
id of the chain travels with the bytes, so whoever has the encoders installed can decode them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from stem_core.errors import ConfigurationError, DecodeError, EncodeError, StemError
from stem_core.plugins import Catalogue
from stem_core.ports.encoder import ContextPayloadEncoder, EncodeContext, PayloadEncoder, TaskPayloadEncoder

__all__ = ["Chain", "TaskPayloadEncoderRegistry"]

#: Most encoders of one chain: a chain's id comes from outside, and its work must be bounded.
MAX_STEPS: Final = 8


class _Step:
    """One encoder of a chain, and what it may raise."""

    __slots__ = ("_decode", "_encode", "bound", "id")

    def __init__(self, encoder: PayloadEncoder) -> None:
        self.id = encoder.id
        #: Whether it is given the context.
        self.bound = isinstance(encoder, ContextPayloadEncoder)
        self._encode: Callable[..., object] = encoder.encode
        self._decode: Callable[..., object] = encoder.decode

    def encode(self, value: Any, context: EncodeContext | None) -> bytes:
        try:
            data = self._encode(value, context) if self.bound else self._encode(value)
        except StemError:
            raise
        except Exception as error:
            raise EncodeError(f"Encoder {self.id!r} failed: {type(error).__name__}: {error}") from error
        if not isinstance(data, bytes):
            raise EncodeError(f"Encoder {self.id!r} made {type(data).__name__} where bytes are needed.")
        return data

    def decode(self, data: bytes, context: EncodeContext | None) -> object:
        try:
            return self._decode(data, context) if self.bound else self._decode(data)
        except StemError:
            raise
        except Exception as error:
            raise DecodeError(f"Encoder {self.id!r} failed: {type(error).__name__}: {error}") from error


class Chain:
    """A resolved chain. Each encoder runs exactly once in each direction."""

    __slots__ = ("_rest", "_value", "id", "wants_context")

    def __init__(self, id: str, value: PayloadEncoder, rest: tuple[PayloadEncoder, ...]) -> None:
        self.id = id
        self._value = _Step(value)
        self._rest = tuple(_Step(each) for each in rest)
        #: Whether some encoder binds its bytes to a context; without it None will do for one.
        self.wants_context = any(each.bound for each in (self._value, *self._rest))

    def encode(self, value: Any, context: EncodeContext | None) -> bytes:
        """The bytes of ``value``.

        :raises EncodeError: an encoder cannot carry it.
        """
        data = self._value.encode(value, context)
        return self.encode_bytes(data, context) if self._rest else data

    def encode_value(self, value: Any, context: EncodeContext | None) -> bytes:
        """The value encoder's part of :meth:`encode`."""
        return self._value.encode(value, context)

    def encode_bytes(self, data: bytes, context: EncodeContext | None) -> bytes:
        """The bytes encoders' part of :meth:`encode`."""
        for step in self._rest:
            data = step.encode(data, context)
        return data

    def decode(self, data: bytes, context: EncodeContext | None) -> object:
        """The value ``data`` was made of.

        :raises DecodeError: the bytes are not this chain's.
        """
        for step in reversed(self._rest):
            plain = step.decode(data, context)
            if not isinstance(plain, bytes):
                raise DecodeError(f"Bytes encoder {step.id!r} decoded to {type(plain).__name__}, not bytes.")
            data = plain
        return self._value.decode(data, context)


class TaskPayloadEncoderRegistry:
    """The encoders of an application: its defaults, those it brings itself, and the installed ones.

    Encoders are given as chain ids, or as objects whose ``id`` then stands for them. Safe to share.
    """

    def __init__(
        self,
        args_encoder: str | PayloadEncoder = "json",
        result_encoder: str | PayloadEncoder = "json",
        additional_encoders: Iterable[PayloadEncoder] = (),
        *,
        catalogue: Catalogue | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._catalogue = catalogue
        self._environment = environment
        self._made: dict[str, PayloadEncoder] = {}
        self._chains: dict[str, Chain] = {}
        for encoder in additional_encoders:
            self.resolve(encoder)
        #: The chain id of arguments, unless a task or a publish says otherwise.
        self.default_args: str = self.resolve(args_encoder)
        #: The chain id of results, unless a task says otherwise.
        self.default_result: str = self.resolve(result_encoder)

    def __repr__(self) -> str:
        return f"<TaskPayloadEncoderRegistry args={self.default_args!r} result={self.default_result!r}>"

    def completed(
        self, catalogue: Catalogue, environment: Mapping[str, str] | None = None
    ) -> TaskPayloadEncoderRegistry:
        """The same encoders, and whatever ``catalogue`` has installed.

        :raises ConfigurationError: a default cannot be resolved.
        """
        result = TaskPayloadEncoderRegistry(
            self.default_args,
            self.default_result,
            self._made.values(),
            catalogue=self._catalogue or catalogue,
            environment=environment if self._environment is None else self._environment,
        )
        result.chain(result.default_args)
        result.chain(result.default_result)
        return result

    def include(self, other: TaskPayloadEncoderRegistry) -> None:
        """Make the encoders that ``other`` was given known here too.

        :raises ConfigurationError: another encoder has one of their ids already.
        """
        for encoder in other._made.values():
            self.resolve(encoder)

    def resolve(self, encoder: str | PayloadEncoder) -> str:
        """The chain id that stands for ``encoder``; an object is registered under its own.

        :raises ConfigurationError: another encoder has that id already, or it is no encoder.
        """
        if isinstance(encoder, str):
            return encoder
        given: object = encoder  # whatever an application passed
        id = getattr(encoder, "id", None)
        if not isinstance(given, TaskPayloadEncoder | ContextPayloadEncoder) or not isinstance(id, str):
            raise ConfigurationError(
                f"{encoder!r} is not an encoder; give an id such as 'json' or 'cbor+zstd', or a TaskPayloadEncoder with "
                "an id"
            )
        if not id or "+" in id or not id.isprintable():
            raise ConfigurationError(f"{id!r} cannot be an encoder's id: printable text without '+'")
        known = self._made.setdefault(id, encoder)
        if known is not encoder:
            raise ConfigurationError(
                f"Two encoders have the id {id!r}: {known!r} and {encoder!r}; rename one"
            )
        return id

    def chain(self, id: str) -> Chain:
        """The chain called ``id``.

        :raises ConfigurationError: an encoder is unknown or unusable, or the chain makes no sense.
        """
        found = self._chains.get(id)
        if found is None:
            found = self._chains[id] = self._compose(id)
        return found

    def varied(self, id: str, *, serializer: str | None, compression: str | None, bare: bool = False) -> str:
        """Chain ``id`` with another value encoder or compression for one publish.

        What binds bytes to their context (encryption) is never lost by that. ``bare`` drops the compression.
        """
        first, *rest = id.split("+")
        start, *more = serializer.split("+") if serializer else [first]
        bound = [each for each in rest if isinstance(self._encoder(each), ContextPayloadEncoder)]
        free = [] if bare or compression else [each for each in rest if each not in bound]
        steps = [*more, *compression.split("+")] if compression else [*more, *free]
        return "+".join([start, *dict.fromkeys([*(each for each in steps if each not in bound), *bound])])

    def encode(self, chain: str, value: Any, context: EncodeContext) -> bytes:
        """``value`` encoded by the chain called ``chain``.

        :raises EncodeError: it cannot be carried.
        :raises ConfigurationError: the chain cannot be resolved here.
        """
        return self.chain(chain).encode(value, context)

    def decode(self, chain: str, data: bytes, context: EncodeContext) -> object:
        """``data`` decoded by the chain called ``chain``.

        :raises DecodeError: these are not its bytes, or the chain cannot be resolved here.
        """
        try:
            found = self.chain(chain)
        except ConfigurationError as error:
            raise DecodeError(f"The payload needs encoder {chain!r}: {error}") from error
        return found.decode(data, context)

    def _compose(self, id: str) -> Chain:
        names = id.split("+")
        if len(names) > MAX_STEPS:
            raise ConfigurationError(
                f"{id!r} is a chain of {len(names)} encoders; at most {MAX_STEPS} are allowed"
            )
        value, *rest = [self._encoder(name) for name in names]
        if value.kind != "value":
            raise ConfigurationError(
                f"{id!r} starts with {names[0]!r}, which turns bytes into bytes; put a value encoder first: 'json+{id}'"
            )
        for encoder in rest:
            if encoder.kind != "bytes":
                raise ConfigurationError(
                    f"{id!r} has the value encoder {encoder.id!r} after its start; only one is possible, at the start"
                )
        return Chain(id, value, tuple(rest))

    def _encoder(self, id: str) -> PayloadEncoder:
        made = self._made.get(id)
        if made is not None:
            return made
        spec = (self._catalogue or Catalogue()).encoder(id)
        environment = os.environ if self._environment is None else self._environment
        return self._made.setdefault(id, spec.open(environment))
