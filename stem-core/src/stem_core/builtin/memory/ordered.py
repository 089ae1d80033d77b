"""A mapping that gives up its smallest key first, in logarithmic time and without leftovers."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

__all__ = ["Ordered"]

K = TypeVar("K", bound=Any)  # anything with an order; ints and tuples of them here
V = TypeVar("V")


class Ordered(Generic[K, V]):
    """Values by key. A removed key stays in the heap until it surfaces, or until half of it is such keys."""

    __slots__ = ("_heap", "_values")

    def __init__(self) -> None:
        self._heap: list[K] = []
        self._values: dict[K, V] = {}

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[V]:
        """The values, in no order."""
        return iter(self._values.values())

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def add(self, key: K, value: V) -> None:
        self._values[key] = value
        heapq.heappush(self._heap, key)

    def remove(self, key: K) -> None:
        """Forget ``key`` if it is there."""
        if self._values.pop(key, None) is not None and len(self._heap) > 2 * len(self._values) + 32:
            self._heap = list(self._values)
            heapq.heapify(self._heap)

    def first(self) -> K | None:
        """The smallest key, None when empty."""
        heap, values = self._heap, self._values
        while heap:
            if heap[0] in values:
                return heap[0]
            heapq.heappop(heap)
        return None

    def head(self) -> V | None:
        """The value of the smallest key, None when empty."""
        key = self.first()
        return None if key is None else self._values[key]

    def pop(self) -> V | None:
        """Take out the value of the smallest key, None when empty."""
        heap, values = self._heap, self._values
        while heap:
            value = values.pop(heapq.heappop(heap), None)
            if value is not None:
                return value
        return None

    def clear(self) -> None:
        self._heap.clear()
        self._values.clear()
