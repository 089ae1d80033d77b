"""What the commands ``stem keys ...`` share: stem-signing, when it is there."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from typing import Any

from stem_core.errors import ConfigurationError

__all__ = ["exports", "signing"]


def signing() -> Any:
    """The module that makes, lists and rotates keys.

    :raises ConfigurationError: stem-signing is not installed.
    """
    if importlib.util.find_spec("stem_signing") is None:
        raise ConfigurationError("keys are the matter of stem-signing; try: pip install stem-signing")
    return importlib.import_module("stem_signing.keys")


def exports(variables: Mapping[str, str]) -> str:
    """Variables as lines for a shell or an environment file."""
    return "\n".join(f"{name}={value}" for name, value in variables.items())
