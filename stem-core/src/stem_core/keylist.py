"""Lists of named keys, ``id:base64, id:base64``, from a variable or a file. Errors show no byte of a key.

``NAME`` holds the list, or ``NAME_FILE`` the path of a file with one entry a line. A file of secrets must be
readable by its owner alone (mode 0600). For signers and encoders that keep a ring of keys.
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from stem_core.errors import ConfigurationError

__all__ = ["check_key_id", "key_entry", "read_keys"]

_LARGEST_FILE: Final = 65_536


def check_key_id(id: str) -> str:
    """``id`` if it can name a key: 1 to 64 printable ASCII characters, none of ``: , = | ;`` or a space.

    :raises ConfigurationError: it cannot.
    """
    if (
        not 1 <= len(id) <= 64
        or not id.isascii()
        or not id.isprintable()
        or any(each in id for each in ":,=|; ")
    ):
        raise ConfigurationError(
            f"{id[:80]!r} cannot be the id of a key; use 1 to 64 letters, digits, '-', '_', '.' and the like"
        )
    return id


def key_entry(id: str, material: bytes) -> str:
    """One ``id:base64`` entry."""
    return f"{check_key_id(id)}:{base64.b64encode(material).decode('ascii')}"


def read_keys(environment: Mapping[str, str], variable: str, *, secret: bool) -> dict[str, bytes]:
    """The keys of ``variable`` by id, in their order; empty when nothing is set.

    :raises ConfigurationError: an entry is malformed, an id is given twice, both the variable and its file are
        set, or others may read a file of secrets. The message starts with the variable's name.
    """
    name, text = _text_of(environment, variable, secret=secret)
    keys: dict[str, bytes] = {}
    entries = [each.strip() for each in text.replace("\n", ",").split(",")]
    for number, entry in enumerate((each for each in entries if each), start=1):
        # An entry may be a bare secret by mistake, so an error shows its number and nothing of it.
        id, colon, encoded = entry.partition(":")
        if not colon:
            raise ConfigurationError(f"{name}: entry {number} is not of the form id:base64.")
        try:
            material = base64.b64decode(encoded.strip().encode("ascii"), validate=True)
        except (binascii.Error, UnicodeEncodeError):
            raise ConfigurationError(
                f"{name}: what follows the id in entry {number} is not base64."
            ) from None
        try:
            check_key_id(id.strip())
        except ConfigurationError:
            raise ConfigurationError(
                f"{name}: what precedes the colon in entry {number} is no key id."
            ) from None
        if id.strip() in keys:
            raise ConfigurationError(f"{name}: key {id.strip()!r} is given twice.")
        keys[id.strip()] = material
    return keys


def _text_of(environment: Mapping[str, str], variable: str, *, secret: bool) -> tuple[str, str]:
    """The name and the text of ``variable``, or of its file."""
    text, file_variable = environment.get(variable, ""), f"{variable}_FILE"
    path = environment.get(file_variable, "").strip()
    if not path:
        return variable, text
    if text.strip():
        raise ConfigurationError(f"{file_variable}: {variable} is set as well; use one of the two.")
    try:
        with Path(path).open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if secret and os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise ConfigurationError(
                    f"{file_variable}: {path} has mode {stat.S_IMODE(mode):04o}, so others may read the keys; chmod 600 it."
                )
            data = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise ConfigurationError(f"{file_variable}: cannot read {path}: {error.strerror}.") from None
    if len(data) > _LARGEST_FILE:
        raise ConfigurationError(
            f"{file_variable}: {path} has more than {_LARGEST_FILE} bytes; is it a list of keys?"
        )
    try:
        return file_variable, data.decode("ascii")
    except UnicodeDecodeError:
        raise ConfigurationError(f"{file_variable}: {path} is not a list of id:base64 lines.") from None
