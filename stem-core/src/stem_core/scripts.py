"""What is defined in a script, named as other processes import it: ``python shop.py`` is ``__main__`` here, ``shop`` there."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

__all__ = ["importable"]

#: What a script is called where it was started, and in the processes that its worker starts.
_SCRIPTS: Final = ("__main__", "__mp_main__")


def importable(module: str, scope: Mapping[str, Any] | None = None) -> str:
    """The name by which workers import ``module``: that of a script is its file's.

    :param scope: its globals, where they are at hand; else those of the module loaded under that name.
    """
    if module not in _SCRIPTS:
        return module
    found = vars(sys.modules[module]) if scope is None and module in sys.modules else scope or {}
    spec, file = found.get("__spec__"), found.get("__file__")
    if spec is not None:
        name: str = spec.name
        return name
    return Path(file).stem if file else module
