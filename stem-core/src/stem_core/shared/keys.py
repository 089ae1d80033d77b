"""Keys of shared values, made of text that comes from outside."""

from __future__ import annotations

import hashlib
from typing import Final

__all__ = ["key_part"]

_LONGEST: Final = 200


def key_part(text: str) -> str:
    """``text`` as a part of a key that every store takes: itself when it is short and printable, else its hash.

    A header may hold 60 kB, or a NUL, which PostgreSQL has in no text: a limit must hold for that tenant too.
    """
    if len(text) <= _LONGEST and text.isprintable():
        return text
    return f"sha256:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"
