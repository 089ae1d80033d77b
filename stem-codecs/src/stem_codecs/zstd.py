"""Zstandard (RFC 8878), by the ``zstandard`` library. Bytes to bytes; one frame, nothing after it."""

from __future__ import annotations

from typing import Any

import zstandard

from stem_codecs.bounds import MAX_EXPANDED, bytes_of, check_expanded
from stem_core.errors import DecodeError, EncodeError
from stem_core.ports.encoder import TaskPayloadEncoder

__all__ = ["ZstdEncoder"]

_MAGIC = b"\x28\xb5\x2f\xfd"


class ZstdEncoder(TaskPayloadEncoder):
    """The best compression for its speed."""

    id = "zstd"
    kind = "bytes"

    def encode(self, value: Any) -> bytes:
        """``value`` compressed.

        :raises EncodeError: it is not bytes, or larger than :meth:`decode` would accept.
        """
        data = bytes_of(value)
        check_expanded(len(data), EncodeError)
        return zstandard.ZstdCompressor(level=3, write_checksum=True, write_content_size=True).compress(data)

    def decode(self, data: bytes) -> bytes:
        """``data`` decompressed, at most :data:`~stem_codecs.bounds.MAX_EXPANDED` bytes.

        :raises DecodeError: it is not one whole frame with its size and checksum, or expands to more.
        """
        try:
            frame = zstandard.get_frame_parameters(data)
            # The size stands before the content, so that nothing larger is ever begun.
            if data[:4] != _MAGIC or frame.content_size == zstandard.CONTENTSIZE_UNKNOWN:
                raise DecodeError("These bytes are not zstd of ours: a frame that does not tell its size")
            if not frame.has_checksum:
                raise DecodeError("These bytes are not zstd of ours: a frame without checksum")
            check_expanded(frame.content_size)
            return zstandard.ZstdDecompressor().decompress(
                data, max_output_size=MAX_EXPANDED, read_across_frames=False, allow_extra_data=False
            )
        except zstandard.ZstdError as error:
            raise DecodeError(f"These bytes are not zstd: {error}") from None
