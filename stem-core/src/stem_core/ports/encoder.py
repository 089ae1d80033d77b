"""What a payload encoder must do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

import msgspec

__all__ = ["ContextPayloadEncoder", "EncodeContext", "PayloadEncoder", "TaskPayloadEncoder"]


class EncodeContext(msgspec.Struct, frozen=True, kw_only=True):
    """What bytes belong to, for encoders that bind them to it (encryption).

    For results ``name`` and ``queue`` are empty: whoever reads a result knows only its id.
    """

    purpose: Literal["args", "result"]
    namespace: str
    id: str
    chain: str
    name: str = ""
    queue: str = ""


class TaskPayloadEncoder(ABC):
    """Turns a value into bytes and back; with ``kind = "bytes"``, bytes into bytes.

    Subclass it and set ``id``. Pure, quick, safe to share between threads. A value encoder is given
    plain containers holding whatever the caller passed, and answers plain data: the core converts that
    to the annotated types.
    """

    id: str
    kind: ClassVar[Literal["value", "bytes"]] = "value"

    @abstractmethod
    def encode(self, value: Any) -> bytes:
        """The bytes of ``value``.

        :raises EncodeError: the value is outside this encoder's domain.
        """

    @abstractmethod
    def decode(self, data: bytes) -> object:
        """The value of ``data``.

        :raises DecodeError: these are not bytes this encoder made, whatever they are.
        """


class ContextPayloadEncoder(ABC):
    """An encoder whose bytes are bound to what they belong to; its spec says ``context=True``."""

    id: str
    kind: ClassVar[Literal["value", "bytes"]] = "bytes"

    @abstractmethod
    def encode(self, value: Any, context: EncodeContext) -> bytes:
        """As :meth:`TaskPayloadEncoder.encode`, bound to ``context``."""

    @abstractmethod
    def decode(self, data: bytes, context: EncodeContext) -> object:
        """As :meth:`TaskPayloadEncoder.decode`; bytes made for another context are a DecodeError."""


PayloadEncoder = TaskPayloadEncoder | ContextPayloadEncoder
