"""What goes wrong between us and the server, said in Stem's words.

Each error says what is known of the effect: ``Refused`` and ``Unreached`` promise that nothing was done,
a plain ``AdapterError`` promises nothing.
"""

from __future__ import annotations

import re
from typing import Final, Literal

from redis import exceptions as driver

from stem_core.errors import AdapterError, PublishError

__all__ = ["Refused", "Unreached", "as_publish_error", "is_unknown_script", "refusal"]


class Refused(AdapterError):
    """The server answered that it will not do this; nothing was done."""

    outcome: Literal["refused"] = "refused"


class Unreached(AdapterError):
    """No connection could be made; nothing was sent."""

    outcome: Literal["refused"] = "refused"


#: Answers the server gives before it does anything. A refused write inside a script ends it, and each script
#: orders its writes so that the first is the one refused.
_BEFORE: Final = (
    "OOM",
    "READONLY",
    "MISCONF",
    "NOAUTH",
    "WRONGPASS",
    "LOADING",
    "MASTERDOWN",
    "NOREPLICAS",
    "BUSY",
    "CLUSTERDOWN",
    "MOVED",
)
_BEFORE_TYPES: Final = (
    driver.OutOfMemoryError,
    driver.ReadOnlyError,
    driver.BusyLoadingError,
    driver.AuthenticationError,
)
#: Where in a script: of no use to who reads the error.
_IN_SCRIPT: Final = re.compile(r"[.,]? script: (?:[0-9a-f]{40}|on @).*$", re.DOTALL)
#: How a script says NOPERM: Valkey and later Redis, Redis 7.0.
_NOPERM_IN_SCRIPT: Final = ("ACL failure", "The user executing the script can't run")
_HINTS: Final = {
    "OOM": "the server is at its maxmemory: raise it, or drain or purge a queue",
    "READONLY": "this server is a read-only replica: connect to the primary",
    "LOADING": "the server is loading its data: try again",
    "NOPERM": "this user may not do it: see the ACL in the README of stem-redis",
    "MISCONF": "the server refuses writes because it cannot save its data",
}
_CODES: Final[dict[type[Exception], str]] = {
    driver.OutOfMemoryError: "OOM",
    driver.ReadOnlyError: "READONLY",
    driver.BusyLoadingError: "LOADING",
    driver.NoPermissionError: "NOPERM",
}


def refusal(error: driver.RedisError, url: str) -> AdapterError:
    """The error for what the server answered. ``url`` is masked already."""
    text = str(error).removeprefix("ERR ")
    if text.startswith(_NOPERM_IN_SCRIPT):
        text = f"NOPERM {text}"
    code = next((code for kind, code in _CODES.items() if isinstance(error, kind)), text.partition(" ")[0])
    hint = f"; {_HINTS[code]}" if code in _HINTS else ""
    message = f"{url} answered: {_IN_SCRIPT.sub('', text)}{hint}"
    certain = isinstance(error, _BEFORE_TYPES) or code in _BEFORE
    return Refused(message) if certain else AdapterError(message)


def is_unknown_script(answer: object) -> bool:
    """Whether the server does not know the script it was asked to run."""
    return isinstance(answer, driver.ResponseError) and str(answer).startswith("NOSCRIPT")


def as_publish_error(error: AdapterError, *, some_done: bool) -> PublishError:
    """The same for a publish, of which ``some_done`` says that a part is stored."""
    nothing = isinstance(error, Refused | Unreached) and not some_done
    told = PublishError(str(error), outcome="refused" if nothing else "unknown")
    told.__cause__ = error
    return told
