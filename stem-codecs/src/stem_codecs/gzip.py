"""gzip (RFC 1952), from the standard library. Bytes to bytes; one member, nothing after it."""

from __future__ import annotations

import zlib
from typing import Any

from stem_codecs.bounds import MAX_EXPANDED, bytes_of, check_expanded
from stem_core.errors import DecodeError, EncodeError
from stem_core.ports.encoder import TaskPayloadEncoder

__all__ = ["GzipEncoder"]

_GZIP = 16 + zlib.MAX_WBITS


class GzipEncoder(TaskPayloadEncoder):
    """Compresses well and is everywhere; zstd is several times quicker. Carries no time, so it is deterministic."""

    id = "gzip"
    kind = "bytes"

    def encode(self, value: Any) -> bytes:
        """``value`` compressed.

        :raises EncodeError: it is not bytes, or larger than :meth:`decode` would accept.
        """
        data = bytes_of(value)
        check_expanded(len(data), EncodeError)
        stream = zlib.compressobj(6, zlib.DEFLATED, _GZIP)
        return stream.compress(data) + stream.flush()

    def decode(self, data: bytes) -> bytes:
        """``data`` decompressed, at most :data:`~stem_codecs.bounds.MAX_EXPANDED` bytes.

        :raises DecodeError: it is not one whole gzip member, or expands to more.
        """
        stream = zlib.decompressobj(_GZIP)
        try:
            value = stream.decompress(data, MAX_EXPANDED + 1)
        except zlib.error as error:
            raise DecodeError(f"These bytes are not gzip: {error}") from None
        check_expanded(len(value))
        if not stream.eof:
            raise DecodeError("These bytes are not gzip: they end too early")
        if stream.unused_data:
            raise DecodeError(f"These bytes are not gzip: {len(stream.unused_data)} bytes follow the end")
        return value
