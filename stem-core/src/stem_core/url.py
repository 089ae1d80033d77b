"""Adapter URLs: their scheme, their query options, and how they look in a log."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit, urlunsplit

from stem_core.errors import ConfigurationError

__all__ = ["mask", "query_of", "scheme_of", "without_query"]


def scheme_of(url: str) -> str:
    """The scheme, lower case.

    :raises ConfigurationError: there is none.
    """
    scheme, separator, _ = url.partition("://")
    if not separator or not scheme:
        raise ConfigurationError(
            f"{mask(url)!r} is not a URL; write scheme://..., for example 'sqlite:///stem.db' or 'memory://'"
        )
    return scheme.lower()


def query_of(url: str) -> dict[str, str]:
    """The query's options; the last of a repeated one wins."""
    return dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))


def without_query(url: str) -> str:
    """The URL up to its query."""
    return url.partition("#")[0].partition("?")[0]


def mask(url: str) -> str:
    """The URL with every password replaced by ``***``, fit for logs and errors."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url.partition("://")[0] + "://***"
    netloc = parts.netloc
    if "@" in netloc:
        user, _, host = netloc.rpartition("@")
        name, colon, _ = user.partition(":")
        netloc = f"{name}{':***' if colon else ''}@{host}"
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    secret = any(_is_secret(key) for key, _ in pairs)
    query = "&".join(f"{k}={'***' if _is_secret(k) else v}" for k, v in pairs) if secret else parts.query
    return urlunsplit((parts.scheme, netloc, parts.path, query, "")) if netloc or parts.query else url


def _is_secret(key: str) -> bool:
    return any(word in key.lower() for word in ("password", "passwd", "secret", "token", "key"))
