"""What is defined in a script, named as other processes import it: ``python shop.py`` is ``__main__`` here, ``shop`` there."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Final

__all__ = ["SCRIPTS", "importable", "load"]

_IN_A_CHILD: Final = "__mp_main__"
#: What a script is called where it was started, and in the processes that its worker starts.
SCRIPTS: Final = ("__main__", _IN_A_CHILD)


def importable(module: str, scope: Mapping[str, Any] | None = None) -> str:
    """The name by which workers import ``module``: that of a script is its file's.

    :param scope: its globals, where they are at hand; else those of the module loaded under that name.
    """
    if module not in SCRIPTS:
        return module
    found = vars(sys.modules[module]) if scope is None and module in sys.modules else scope or {}
    spec, file = found.get("__spec__"), found.get("__file__")
    if spec is not None:
        name: str = spec.name
        return name
    return Path(file).stem if file else module


def load(name: str | None, path: str) -> ModuleType:
    """The script that another process was started with, here under a name that is not ``__main__``.

    :param name: the module's, where it was started as ``python -m name``.
    :raises ImportError: there is no such module here.
    """
    module = ModuleType(_IN_A_CHILD)
    scope = vars(module)
    if name is None:
        scope["__file__"] = path
    else:
        spec = find_spec(name)
        if spec is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        scope |= {"__spec__": spec, "__package__": spec.parent, "__file__": spec.origin or path}
    code = compile(Path(scope["__file__"]).read_bytes(), scope["__file__"], "exec")
    sys.modules[_IN_A_CHILD] = module  # there for good: what is defined in it is looked up by that name
    exec(code, scope)  # noqa: S102 - the application
    return module
