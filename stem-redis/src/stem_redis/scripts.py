"""The Lua of ``scripts/``: each script is its preludes and its own file, one after the other."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Final

__all__ = ["SCRIPTS", "Script"]

# Each call compiles nothing, but makes every function and table of its preludes: a script takes only what it uses.
_READY: Final = ("constants", "common", "ready")
_PUBLISH: Final = (*_READY, "queue")
_QUEUE: Final = (*_PUBLISH, "lease", "deliveries")
_LEASES: Final = (*_QUEUE, "leases")
_STATUS: Final = ("life", "index", "status")
_PRELUDES: Final[dict[str, tuple[str, ...]]] = {
    "publish": _PUBLISH,
    "claim": ("constants", "ready", "lease"),
    "claim_due": _QUEUE,
    "settle": _LEASES,
    "extend": _LEASES,
    "stats": _QUEUE,
    "purge": _QUEUE,
    "dead_replay": _QUEUE,
    "dead_purge": _QUEUE,
    "ring": _READY,
    "record": ("constants", "common", *_STATUS),
    "fetch": (),
    "list": (),
    "group_create": ("common",),
    "group_add": ("common", "group"),
    "group_close": (),
    "group_get": (),
    "enqueue": ("constants", "ready", "life"),
    "enqueue_one": ("constants",),
    "commit": (*_LEASES, *_STATUS, "group"),
    "state_read": (),
    "state_write": (),
    "state_delete": (),
    "state_scan": (),
    "limit": (),
}


@dataclass(frozen=True, slots=True)
class Script:
    """One script, known to the server by the SHA1 of its text."""

    name: str
    text: bytes
    sha: bytes = field(init=False)

    def __post_init__(self) -> None:
        # The server's own name for a script; it protects nothing.
        digest = hashlib.sha1(self.text, usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", digest.encode())


@cache
def _scripts() -> dict[str, Script]:
    folder = resources.files("stem_redis") / "scripts"

    @cache
    def text(name: str) -> str:
        return (folder / f"{name}.lua").read_text("utf-8")

    return {
        name: Script(name, "\n".join(map(text, (*preludes, name))).encode())
        for name, preludes in _PRELUDES.items()
    }


SCRIPTS: Final = _scripts()
