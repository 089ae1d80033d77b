"""CBOR (RFC 8949): plain data with bytes, one encoding for one value, no tags.

Encoding is deterministic: shortest forms, and the keys of a map sorted (shorter first, then bytewise; RFC 7049,
section 3.9), so a dict does not keep its order. Decoding takes any definite-length CBOR of plain data and refuses
every tag: shared and cyclic references, regular expressions, bignums and decimal exponents among them.
"""

from __future__ import annotations

import io
from typing import Any, Final, NoReturn

import cbor2

from stem_codecs.bounds import check_cbor
from stem_core.errors import DecodeError, EncodeError
from stem_core.plain import MAX_NESTING, check_plain, to_plain
from stem_core.ports.encoder import TaskPayloadEncoder

__all__ = ["CborEncoder"]


def _refuse_tag(*_: object) -> NoReturn:
    raise cbor2.CBORDecodeError("a tag; Stem's CBOR has none")


#: Every tag cbor2 decodes by itself; any other goes to ``tag_hook``.
_TAGS: Final = dict.fromkeys(
    (*range(6), 25, 28, 29, 30, 35, 36, 37, 43, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799),
    _refuse_tag,
)


class CborEncoder(TaskPayloadEncoder):
    """Domain: None, bool, int of -2**63 to 2**64-1, finite float, str, bytes, list, dict with str keys.

    By declared type: all of :mod:`stem_core.plain`, bytes as they are.
    """

    id = "cbor"

    def encode(self, value: Any) -> bytes:
        """The bytes of ``value``.

        :raises EncodeError: something in it cannot travel; the message holds the path to it.
        """
        data = cbor2.dumps(to_plain(value, binary=True), canonical=True)
        check_cbor(data, EncodeError)
        return data

    def decode(self, data: bytes) -> object:
        """The plain data in ``data``.

        :raises DecodeError: it is not CBOR of plain data.
        """
        check_cbor(data)
        stream = io.BytesIO(data)
        try:
            value = cbor2.CBORDecoder(
                stream,
                tag_hook=_refuse_tag,
                semantic_decoders=_TAGS,
                max_depth=MAX_NESTING + 1,  # one more than a scalar's depth; check_plain has the last word
                allow_indefinite=False,
                allow_duplicate_keys=False,
                strict_hashable_types=True,
            ).decode()
        except (cbor2.CBORError, ValueError, OverflowError, RecursionError, MemoryError) as error:
            raise DecodeError(f"These bytes are not CBOR of ours: {error}") from None
        rest = len(data) - stream.tell()
        if rest:
            raise DecodeError(f"These bytes are not CBOR of ours: {rest} bytes follow the value")
        check_plain(value, binary=True)
        return value
