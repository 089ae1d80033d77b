"""MessagePack, by msgspec: plain data with bytes, in its shortest form, no extension types.

A dict keeps its order. Decoding accepts exactly what encoding makes: whatever comes back as other bytes (a key
twice, an int in more bytes than it needs, a 32-bit float) is refused.
"""

from __future__ import annotations

from typing import Any, NoReturn

import msgspec

from stem_codecs.bounds import check_msgpack
from stem_core.errors import DecodeError, EncodeError
from stem_core.plain import check_plain, to_plain
from stem_core.ports.encoder import TaskPayloadEncoder

__all__ = ["MsgpackEncoder"]


def _refuse_extension(code: int, _: memoryview) -> NoReturn:
    raise DecodeError(f"These bytes are not MessagePack of ours: extension type {code}")


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(ext_hook=_refuse_extension).decode


class MsgpackEncoder(TaskPayloadEncoder):
    """Domain: None, bool, int of -2**63 to 2**64-1, finite float, str, bytes, list, dict with str keys.

    By declared type: all of :mod:`stem_core.plain`, bytes as they are.
    """

    id = "msgpack"

    def encode(self, value: Any) -> bytes:
        """The bytes of ``value``.

        :raises EncodeError: something in it cannot travel; the message holds the path to it.
        """
        data = _encode(to_plain(value, binary=True))
        check_msgpack(data, EncodeError)
        return data

    def decode(self, data: bytes) -> object:
        """The plain data in ``data``.

        :raises DecodeError: it is not what :meth:`encode` makes.
        """
        check_msgpack(data)
        try:
            value = _decode(data)
        except (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise DecodeError(f"These bytes are not MessagePack of ours: {error}") from None
        check_plain(value, binary=True)  # timestamps too: msgspec decodes that extension by itself
        if _encode(value) != data:
            raise DecodeError(
                "These bytes are not MessagePack of ours: a key twice, or a longer form than needed"
            )
        return value
