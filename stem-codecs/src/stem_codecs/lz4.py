"""LZ4 frames, by the ``lz4`` library. Bytes to bytes; one frame, nothing after it."""

from __future__ import annotations

from typing import Any

import lz4.frame

from stem_codecs.bounds import MAX_EXPANDED, bytes_of, check_expanded
from stem_core.errors import DecodeError, EncodeError
from stem_core.ports.encoder import TaskPayloadEncoder

__all__ = ["Lz4Encoder"]


class Lz4Encoder(TaskPayloadEncoder):
    """Compresses least and costs least."""

    id = "lz4"
    kind = "bytes"

    def encode(self, value: Any) -> bytes:
        """``value`` compressed.

        :raises EncodeError: it is not bytes, or larger than :meth:`decode` would accept.
        """
        data = bytes_of(value)
        check_expanded(len(data), EncodeError)
        return bytes(lz4.frame.compress(data, content_checksum=True, store_size=True))

    def decode(self, data: bytes) -> bytes:
        """``data`` decompressed, at most :data:`~stem_codecs.bounds.MAX_EXPANDED` bytes.

        :raises DecodeError: it is not one whole frame, or expands to more.
        """
        stream = lz4.frame.LZ4FrameDecompressor()
        try:
            value = bytes(stream.decompress(data, max_length=MAX_EXPANDED + 1))
        except (RuntimeError, ValueError, EOFError) as error:
            raise DecodeError(f"These bytes are not lz4: {error}") from None
        check_expanded(len(value))
        if not stream.eof:
            raise DecodeError("These bytes are not lz4: they end too early")
        if stream.unused_data:
            raise DecodeError(f"These bytes are not lz4: {len(stream.unused_data)} bytes follow the end")
        return value
