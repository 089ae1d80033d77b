"""Every key kept in the server: its name, type, content and life.

``NS`` is the namespace and ``Q`` a queue, both percent-encoded, so that no name can reach into another's
keys. All keys of a queue share one hash tag, ``{NS:Q}``, so that each lies in one slot of a cluster.

Broker, per queue; ``R`` is ``stem:{NS:Q}``

=============  ======  ==========================================================================
``R:s0..9``    stream  Messages of one level, 9 first. Fields ``i`` id, ``e`` sealed bytes and, unless
                       all are 0, ``c`` = "generation attempt deliveries once". Group ``stem`` with the one
                       consumer ``w``. The group's pending entries are the leases: an entry's idle time is
                       set so that it reaches FOREVER (10 years) when its lease ends. Entries are deleted
                       when settled; the empty stream expires after a day.
``R:levels``   set     The levels whose stream holds something. Gone when none does.
``R:d``        zset    Scheduled messages; score = due in ms, member = msgpack of [sequence, level, id, c,
                       sealed]. Moved to their stream by the first claim after they are due.
``R:leases``   zset    When some lease may have ended, in ms on a grid of 20 (score = member): a claim looks
                       for ended leases only then. Gone when no message is left in a stream.
``R:bell``     list    At most one element: somebody should look. Idle workers block on it. Lives a minute.
``R:once:ID``  string  A ``once`` id that is known. Lives as long as its message, then ``once_ttl``.
``R:x``        stream  Dead letters. Fields ``i``, ``e``, ``c``, ``r`` reason, ``t`` detail, ``l`` level.
                       Kept until replayed or purged.
``R:counts``   hash    ``published``, ``acked``, ``purged`` since the key was made, and ``seq``, the last
                       sequence of ``R:d``. Expires 30 days after the queue was last empty.
=============  ======  ==========================================================================

Broker, per namespace; ``N`` is ``stem:NS``

=============  =======  =========================================================================
``N:b:NAME``   channel  Broadcasts. Nothing is kept.
=============  =======  =========================================================================

Backend

=============  =======  =========================================================================
``N:t:ID``     hash     A status. ``o`` its order, state and place in the index (see ``scripts/status.lua``),
                        ``n`` name, ``q`` queue, ``p`` payload, ``c`` encoder, ``e`` error, ``g`` progress,
                        ``m:KEY`` a value of meta (``e``, ``g`` and meta as msgpack), ``t`` enqueued,
                        ``b`` begun, ``f`` finished (microseconds). Expires by its ``ttl``.
``N:w:0..15``  channel  Ids of tasks that reached a terminal state, by the last characters of the id.
``N:i:HOUR``   list     Index for listing: ids enqueued in an hour (0: unknown), only appended to. Expires
                        within an hour after its last status.
``N:i``        zset     The hours that have an index. Expires with the last of them.
``N:g:ID``     hash     A group. ``d`` its definition (msgpack), ``c`` its callback as the commit script
                        publishes it, ``n`` members left, ``ttl`` ms, ``b`` who completed it, ``x`` why it was
                        closed, ``m:MEMBER`` an outcome (empty: none yet), ``p:MEMBER`` its payload.
``N:s:KEY``    hash     Shared state: ``v`` value, ``n`` version. Expires by its own ttl.
``N:sv``       string   The last version given, at least the time in microseconds. Lives a day.
``N:sk``       zset     The keys of shared state, all of score 0, for scans by prefix.
``N:sx``       zset     When keys of shared state expire (ms), to prune ``N:sk``. Both expire with their
                        last key.
``N:l:KEY``    string   A limit's theoretical arrival time in microseconds. Lives until it has passed.
=============  =======  =========================================================================
"""

from __future__ import annotations

from typing import Final

from stem_core.options import check_name

__all__ = ["KINDS", "Keys"]

#: Each kind of key in short, for people: the start of its name -> its type and what it holds.
KINDS: Final = {
    "R:s0..9": "stream: messages by level; leases are its pending entries",
    "R:levels": "set: levels in use",
    "R:d": "zset: scheduled messages",
    "R:leases": "zset: when leases may end",
    "R:bell": "list: doorbell of idle workers",
    "R:once": "string: once ids that are known",
    "R:x": "stream: dead letters",
    "R:counts": "hash: published, acked, purged",
    "N:t": "hash: statuses and results",
    "N:i": "list, zset: index of statuses by hour",
    "N:g": "hash: groups",
    "N:s": "hash: shared state",
    "N:sv": "string: last version of shared state",
    "N:sk": "zset: keys of shared state",
    "N:sx": "zset: when they expire",
    "N:l": "string: limits",
}

_ESCAPES: Final = str.maketrans({char: f"%{ord(char):02X}" for char in "%{}:*?[]\\"})


class Keys:
    """The key names of one namespace."""

    def __init__(self, namespace: str) -> None:
        self._namespace = check_name(namespace, "namespace").translate(_ESCAPES)
        self.prefix = f"stem:{self._namespace}:"
        """What every backend key and every channel starts with."""
        self._roots: dict[str, str] = {}

    def root(self, queue: str) -> str:
        """What every key of a queue starts with, before a colon and its kind."""
        root = self._roots.get(queue)
        if root is None:
            root = f"stem:{{{self._namespace}:{check_name(queue, 'queue').translate(_ESCAPES)}}}"
            if len(self._roots) >= 10_000:  # queues named by data must not fill the memory
                self._roots.clear()
            self._roots[queue] = root
        return root

    def broadcast(self, channel: str) -> str:
        return f"{self.prefix}b:{channel}"

    def ended(self, id: str) -> str:
        """The channel that tells of the end of a task; ``tell_ended`` in status.lua agrees."""
        before_last = ord(id[-2]) if len(id) > 1 else 0
        return f"{self.prefix}w:{(ord(id[-1]) + 7 * before_last) % 16}"

    def everything(self) -> tuple[str, str]:
        """Patterns that match every key of the namespace."""
        return f"{self.prefix}*", f"stem:{{{self._namespace}:*"
