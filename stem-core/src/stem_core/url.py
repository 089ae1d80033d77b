"""Adapter URLs: their scheme, their query options, and how they look in a log."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

from stem_core.errors import ConfigurationError

__all__ = ["mask", "query_of", "scheme_of", "unescaped", "without_query"]


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
    """The URL with every password replaced by ``***``, fit for logs and errors. So is what only resembles one."""
    if "://" not in url:
        return _without_password(url)
    try:
        parts = urlsplit(url)
    except ValueError:
        return url.partition("://")[0] + "://***"
    if unescaped(url):
        return f"{parts.scheme}://***{url[url.rindex('@') :]}"
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    secret = any(_is_secret(key) for key, _ in pairs)
    query = "&".join(f"{k}={'***' if _is_secret(k) else v}" for k, v in pairs) if secret else parts.query
    return f"{parts.scheme}://{_without_password(parts.netloc)}{parts.path}{query and f'?{query}'}"


def unescaped(url: str) -> bool:
    """Whether a user name or password seems to hold a / ? or # that is not percent-encoded.

    Parsers take the URL apart there, and their errors may quote what is left of the password as a port or a host.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return "@" in url
    return bool(parts.netloc) and "@" in (parts.path if "@" in parts.netloc else url)


def _without_password(text: str) -> str:
    """``user:password@host`` without the password, which may hold an ``@`` of its own."""
    user, at, host = text.rpartition("@")
    name, colon, _ = user.partition(":")
    return f"{name}{colon and ':***'}{at}{host}"


def _is_secret(key: str) -> bool:
    return any(word in key.lower() for word in ("password", "passwd", "secret", "token", "key"))
