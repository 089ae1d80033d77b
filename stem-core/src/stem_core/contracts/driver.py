"""Drives async adapters from sync tests: one private event loop, and every adapter opened on it."""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import uuid
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from stem_core.contracts.time import Span, Time
from stem_core.ports.backend import Backend
from stem_core.ports.broker import Broker
from stem_core.ports.specs import AdapterOptions, BackendSpec, BrokerSpec

__all__ = ["Driver", "unique"]

T = TypeVar("T")


def unique(prefix: str = "c") -> str:
    """A name nobody else has: lower case, a letter first."""
    return f"{prefix}{uuid.uuid4().hex[:16]}"


class _Counting(selectors.DefaultSelector):
    """Counts how often it is asked."""

    count = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.count += 1
        return super().select(timeout)


class Driver:
    """A loop, a clock and a namespace. Adapters stay referenced until the end, closed or not, so that a
    store that lives as long as its adapters does too.
    """

    def __init__(self, time: Time, *, once_ttl: float = 3600.0) -> None:
        self.time = time
        self.namespace = unique()
        self.once_ttl = once_ttl
        self._selector = _Counting()
        self._runner = asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(self._selector))
        self._opened: list[Broker | Backend] = []
        self._options: dict[str, AdapterOptions] = {}
        self._start = time.now()
        self._planned = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every adapter and the loop."""
        try:
            for adapter in reversed(self._opened):
                with contextlib.suppress(Exception):  # a law's test of close says more
                    self.run(adapter.close())
        finally:
            self._opened.clear()
            self._runner.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` to its end."""
        return self._runner.run(work)

    def timed(self, work: Coroutine[Any, Any, T]) -> tuple[T, Span]:
        """Run ``work``; its answer, and when it happened."""
        start = self.time.now()
        answer = self.run(work)
        return answer, Span(start, self.time.now())

    def now(self) -> Span:
        now = self.time.now()
        return Span(now, now)

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass for the adapters."""
        if seconds > 0:
            self.run(self.passing(seconds))

    async def passing(self, seconds: float) -> None:
        """As :meth:`advance`, within a coroutine."""
        self._planned += seconds
        await asyncio.sleep(self.time.pass_(seconds))

    def late(self) -> float:
        """By how many seconds real time has run ahead of what was asked to pass."""
        return 0.0 if self.time.exact else self.time.now() - self._start - self._planned

    def turns(self) -> int:
        """How often the loop has gone round: what waits without working hardly turns it."""
        return self._selector.count

    def renew(self) -> None:
        """Begin again, in another namespace."""
        self.namespace = unique()
        self._start, self._planned = self.time.now(), 0.0

    def options(self, namespace: str | None = None) -> AdapterOptions:
        """One object for each namespace, as a Stem has one: some stores are private to their options."""
        name = namespace or self.namespace
        if name not in self._options:
            self._options[name] = AdapterOptions(
                namespace=name, clock=self.time.clock, once_ttl=self.once_ttl
            )
        return self._options[name]

    def broker(self, spec: BrokerSpec, url: str, *, namespace: str | None = None) -> Broker:
        """An open broker; another call is another client of the same store."""
        broker = spec.open(url, self.options(namespace))
        self.run(self.opening(broker))
        return broker

    def backend(self, spec: BackendSpec, url: str, *, namespace: str | None = None) -> Backend:
        """An open backend; another call is another client of the same store."""
        backend = spec.open(url, self.options(namespace))
        self.run(self.opening(backend))
        return backend

    async def opening(self, adapter: Broker | Backend) -> None:
        """Open ``adapter`` and keep it."""
        self._opened.append(adapter)
        await adapter.open()
