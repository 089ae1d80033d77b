"""One memory store: what broker and backend share, its lock, and the registry of the shared ones."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote

from stem_core.builtin.memory.queues import Queues
from stem_core.builtin.memory.records import Records
from stem_core.builtin.waiters import Waiters
from stem_core.errors import ConfigurationError
from stem_core.ports.specs import AdapterOptions
from stem_core.url import mask, query_of, without_query

__all__ = ["Inbox", "Store", "open_store"]


class Inbox:
    """What was broadcast to one subscriber and not taken yet."""

    __slots__ = ("channels", "items")

    def __init__(self, channels: Sequence[str]) -> None:
        self.channels = frozenset(channels)
        self.items: deque[tuple[str, bytes]] = deque()


class Store:
    """Everything in one namespace of one ``memory://`` URL.

    Every operation takes ``lock`` once, so each is atomic and safe from any thread. It keeps ``options``: the
    clock and ``once_ttl`` are those of whoever made the store.
    """

    def __init__(self, options: AdapterOptions) -> None:
        self.options = options
        self.clock = options.clock
        self.lock = threading.Lock()
        self.queues = Queues(options.once_ttl)
        self.records = Records()
        self.inboxes: list[Inbox] = []
        self.for_messages: Waiters[str] = Waiters()  # by queue
        self.for_results: Waiters[str] = Waiters()  # by task id
        self.for_broadcasts: Waiters[str] = Waiters()  # by channel


#: Stores by (URL's name, namespace), or by the identity of the options for a nameless URL. The store
#: holds its options, so an identity stays taken as long as its store lives. The one module state there is.
_STORES: Final[weakref.WeakValueDictionary[tuple[str, object], Store]] = weakref.WeakValueDictionary()
_STORES_LOCK: Final = threading.Lock()


def open_store(url: str, options: AdapterOptions) -> Store:
    """The store of ``url``: ``memory://name`` is one in this process (and namespace), ``memory://`` is shared
    only by adapters made with the very same options object, as one ``Stem`` makes its broker and backend.

    :raises ConfigurationError: the URL has a query.
    """
    if query_of(url):
        raise ConfigurationError(f"{mask(url)!r} has options; memory:// and memory://name take none")
    name = unquote(without_query(url).partition("://")[2])
    key: tuple[str, object] = (name, options.namespace) if name else ("", id(options))
    with _STORES_LOCK:
        store = _STORES.get(key)
        if store is None:
            store = _STORES[key] = Store(options)
        return store
