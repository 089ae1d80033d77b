"""What a URL says: where to connect, how, and which of its options are ours.

A direct connection is also given planner settings at start-up, because plans of prepared statements outlive the
empty tables they were made for: an index, in its order, is always right for our statements, whatever their
parameters, so a plan is made once. (Left to choose, PostgreSQL plans every claim of a long queue anew, for longer
than the claim itself takes.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from stem_core.errors import ConfigurationError
from stem_core.url import mask, query_of, without_query

__all__ = ["Location", "locate"]

_PLANNER: Final = "-c enable_seqscan=off -c enable_bitmapscan=off -c plan_cache_mode=force_generic_plan -c jit=off -c timezone=UTC"
#: Our transactions never wait for people; one that does holds back vacuum for everybody.
_GUARDS: Final = "-c idle_in_transaction_session_timeout=60000"
_KEEPALIVE: Final = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
_OURS: Final = ("schema", "pgbouncer", "listen_url", "pool", "migrate")


@dataclass(frozen=True, slots=True)
class Location:
    """A URL taken apart. ``listen`` is None where LISTEN cannot work and polling must do; ``timeout`` is how long
    to wait for a connection, in seconds: the URL's ``connect_timeout``, else what the options say.
    """

    url: str
    conninfo: str
    listen: str | None
    schema: str
    pooled: bool
    migrate: bool
    size: int
    timeout: float


def locate(url: str, timeout: float = 10.0) -> Location:
    """What ``url`` says; unknown query options are libpq's.

    :raises ConfigurationError: an option's value is not one.
    """
    query = query_of(url)
    ours: dict[str, str] = {name: query.pop(name) for name in _OURS if name in query}
    schema = ours.get("schema", "stem")
    if not schema or len(schema.encode()) > 63 or "\0" in schema:
        raise ConfigurationError(
            f"schema={schema!r} in {mask(url)!r}: expected a PostgreSQL schema name of 1 to 63 bytes"
        )
    pooled = _flag(url, ours, "pgbouncer", False)
    try:
        size = int(ours.get("pool", "8"))
    except ValueError:
        size = 0
    if size < 1:
        raise ConfigurationError(
            f"pool={ours['pool']!r} in {mask(url)!r}: expected the most connections to hold, 1 or more"
        )
    bare = without_query(url) + ("?" + urlencode(query, quote_via=quote) if query else "")
    main = _conninfo(bare, url, timeout, pooled)
    listen: str | None = None if pooled else main
    if ours.get("listen_url"):
        listen = _conninfo(ours["listen_url"], ours["listen_url"], timeout, False)
    migrate = _flag(url, ours, "migrate", True)
    given = query.get("connect_timeout", "")  # what is no number of seconds, libpq refuses itself
    wait = float(given) if given.isdecimal() and int(given) else timeout
    return Location(url, main, listen, schema, pooled, migrate, size, wait)


def _flag(url: str, options: Mapping[str, str], name: str, default: bool) -> bool:
    value = options.get(name)
    if value is None:
        return default
    if value.lower() in ("1", "true", "yes", "on", ""):
        return True
    if value.lower() in ("0", "false", "no", "off"):
        return False
    raise ConfigurationError(f"{name}={value!r} in {mask(url)!r}: expected 1 or 0")


def _conninfo(url: str, told: str, timeout: float, pooled: bool) -> str:
    """:param told: the URL with all its options, as it was given."""
    why: object = "percent-encode % / ? # @ in its user name and password"
    try:
        given = conninfo_to_dict(url)
    except psycopg.Error as error:
        # What the driver says of such a URL quotes a part of the password.
        raise ConfigurationError(
            f"{mask(told)!r} is not a PostgreSQL URL: {why if '@' in told else error}"
        ) from None
    if not str(given.get("port") or "0").replace(",", "").isdecimal():
        raise ConfigurationError(f"{mask(told)!r} has a port that is no number; {why}")
    settings: dict[str, Any] = {"connect_timeout": max(2, round(timeout)), "application_name": "stem"}
    settings |= _KEEPALIVE
    settings |= given
    if not pooled:
        settings["options"] = " ".join(filter(None, (_PLANNER, _GUARDS, str(given.get("options") or ""))))
    return make_conninfo(**settings)
