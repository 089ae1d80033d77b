"""AES-256-GCM (NIST SP 800-38D), by the ``cryptography`` library: bytes nobody else can read or move elsewhere.

    0x01 | key id length u8 | key id | nonce 12 bytes, random | ciphertext and 16-byte tag

The tag also covers ``stem-aead-v1``, the key's id, and everything the bytes belong to: purpose, namespace, id, name,
queue and encoder chain, each after its length. A ciphertext put under another task fails to decrypt.

    STEM_ENCRYPTION_KEYS        id:base64, ...   32 random bytes each; or STEM_ENCRYPTION_KEYS_FILE
    STEM_ENCRYPTION_ACTIVE_KEY  id               the one that encrypts; may be left out when there is only one

Random nonces allow 2**32 payloads per key; rotate long before.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from stem_codecs.bounds import bytes_of
from stem_core.errors import ConfigurationError, DecodeError
from stem_core.keylist import read_keys
from stem_core.ports.encoder import ContextPayloadEncoder, EncodeContext

__all__ = ["AesGcmEncoder", "open_aes_gcm"]

KEYS: Final = "STEM_ENCRYPTION_KEYS"
ACTIVE_KEY: Final = "STEM_ENCRYPTION_ACTIVE_KEY"
_VERSION: Final = 1
_KEY: Final = 32
_NONCE: Final = 12
_TAG: Final = 16


def open_aes_gcm(environment: Mapping[str, str]) -> AesGcmEncoder:
    """The encoder with the keys of ``environment``.

    :raises ConfigurationError: they are missing or malformed; the message starts with the variable's name.
    """
    keys = read_keys(environment, KEYS, secret=True)
    if not keys:
        raise ConfigurationError(
            f'{KEYS}: It is not set; give id:base64 of 32 random bytes: python -c "import base64, os; '
            "print('k1:' + base64.b64encode(os.urandom(32)).decode())\""
        )
    for id, material in keys.items():
        if len(material) != _KEY:
            raise ConfigurationError(f"{KEYS}: key {id!r} has {len(material)} bytes; AES-256 needs {_KEY}.")
    active = environment.get(ACTIVE_KEY, "").strip()
    if not active and len(keys) > 1:
        raise ConfigurationError(
            f"{ACTIVE_KEY}: It is not set, and there are {len(keys)} keys: {', '.join(keys)}."
        )
    active = active or next(iter(keys))
    if active not in keys:
        raise ConfigurationError(f"{ACTIVE_KEY}: no key is called {active!r}; known: {', '.join(keys)}.")
    return AesGcmEncoder(keys, active)


class AesGcmEncoder(ContextPayloadEncoder):
    """Hides the payload and binds it to its task. Names, queues, ids, headers and sizes stay readable."""

    id = "aes-gcm"
    kind = "bytes"

    def __init__(self, keys: Mapping[str, bytes], active: str) -> None:
        """:param keys: 32 bytes each, all of them decrypt; ``active`` encrypts."""
        self._ciphers = {id: AESGCM(material) for id, material in keys.items()}
        self._active = active

    def __repr__(self) -> str:
        return f"<AesGcmEncoder active={self._active} keys={', '.join(self._ciphers)}>"

    def encode(self, value: Any, context: EncodeContext) -> bytes:
        """``value`` encrypted for ``context``, different each time.

        :raises EncodeError: it is not bytes.
        """
        data = bytes_of(value)
        nonce = os.urandom(_NONCE)
        head = bytes((_VERSION, len(self._active))) + self._active.encode("ascii")
        covered = _associated_data(self._active, context)
        return head + nonce + self._ciphers[self._active].encrypt(nonce, data, covered)

    def decode(self, data: bytes, context: EncodeContext) -> bytes:
        """``data`` decrypted.

        :raises DecodeError: it was made with a key that is not here, for another context, or not by this encoder.
        """
        if len(data) < 2 or data[0] != _VERSION:
            raise DecodeError("These bytes are not encrypted by aes-gcm: they do not start with version 1")
        start = 2 + data[1]
        id = data[2:start].decode("ascii", "replace")
        if not data[1] or len(data) < start + _NONCE + _TAG:
            raise DecodeError("These bytes are not encrypted by aes-gcm: they end too early")
        cipher = self._ciphers.get(id)
        if cipher is None:
            raise DecodeError(
                f"Encrypted with key {id[:64]!r}, which is not here; known: {', '.join(self._ciphers)}. See {KEYS}."
            )
        nonce = data[start : start + _NONCE]
        try:
            return cipher.decrypt(nonce, data[start + _NONCE :], _associated_data(id, context))
        except InvalidTag:
            raise DecodeError(
                f"Encrypted bytes that were changed, or belong elsewhere than {context.purpose} of {context.id!r}"
            ) from None


def _associated_data(key_id: str, context: EncodeContext) -> bytes:
    """What the tag covers beside the bytes: a count, then each part after its length, 64-bit little-endian."""
    parts = (
        "stem-aead-v1",
        key_id,
        context.purpose,
        context.namespace,
        context.id,
        context.name,
        context.queue,
        context.chain,
    )
    out = [len(parts).to_bytes(8, "little")]
    for part in (each.encode() for each in parts):
        out += (len(part).to_bytes(8, "little"), part)
    return b"".join(out)
