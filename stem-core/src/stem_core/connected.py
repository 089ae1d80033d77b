"""An application's adapters as one object: what it is wired to, opening and closing, and work done at home."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

from stem_core.checks import FLAG, check_kind
from stem_core.encoding import TaskPayloadEncoderRegistry
from stem_core.loops import Home
from stem_core.planning import Planner
from stem_core.ports.backend import Backend
from stem_core.ports.broker import Broker
from stem_core.ports.committer import Committer
from stem_core.routing import Routing
from stem_core.sending import Publish
from stem_core.tasks import Task
from stem_core.wiring import Wiring

__all__ = ["Connected"]

T = TypeVar("T")


class Connected:
    """Adapters that connect on ``async with``, ``await open()`` or first use, from any thread, loop or fork."""

    def __init__(
        self,
        wiring: Wiring,
        *,
        tasks: Mapping[str, Task[..., Any]],
        routing: Routing,
        strict: bool,
        publish_timeout: float,
    ) -> None:
        check_kind("strict", strict, FLAG)
        self._known = tasks
        self._routing = routing
        self._strict = strict
        self._publish_timeout = publish_timeout
        self._stays: list[bool] = []
        self._point_at(wiring)

    def __repr__(self) -> str:
        broker, backend = type(self.broker).__name__, type(self.backend).__name__ if self.backend else "none"
        return f"<{type(self).__name__} broker={broker} backend={backend} namespace={self.namespace!r}>"

    # What it is wired to.

    @property
    def wiring(self) -> Wiring:
        """Adapters, encoders and signer in use now."""
        return self._home.wiring

    @property
    def broker(self) -> Broker:
        """The broker in use now."""
        return self.wiring.broker

    @property
    def backend(self) -> Backend | None:
        """The backend in use now."""
        return self.wiring.backend

    @property
    def committer(self) -> Committer | None:
        """What commits to broker and backend together; None before ``open``, or when they are two stores."""
        return self.wiring.committer

    @property
    def encoders(self) -> TaskPayloadEncoderRegistry:
        """The encoders in use now."""
        return self.wiring.encoders

    @property
    def namespace(self) -> str:
        """What keeps applications in one store apart."""
        return self.wiring.namespace

    @property
    def routing(self) -> Routing:
        """Which queue a task goes to when nobody says."""
        return self._routing

    @property
    def strict(self) -> bool:
        """Whether an option that would be adjusted is refused."""
        return self._strict

    @property
    def adjustment_counts(self) -> Mapping[str, int]:
        """How often each option was adjusted to what the adapters can do."""
        return dict(self._planner.adjusted)

    def _point_at(self, wiring: Wiring) -> None:
        self._home = Home(wiring, self._publish_timeout)
        self._planner = Planner(wiring, self._known, self._routing, self._strict)

    @contextmanager
    def pointed_at(self, wiring: Wiring) -> Iterator[None]:
        """Everything through ``wiring`` inside, for every task and thread; nests. Open and close it inside."""
        before = self._home, self._planner
        self._point_at(wiring)
        try:
            yield
        finally:
            self._home, self._planner = before

    @property
    def publish_timeout(self) -> float:
        """Seconds after which one try of a publish fails."""
        return self._publish_timeout

    # Open and close.

    async def open(self) -> None:
        """Connect, and make the running loop the home of the adapters. Does nothing when open.

        :raises AdapterError: a store is out of reach.
        """
        await self._home.open()

    async def close(self) -> None:
        """Finish what is under way and release the adapters. Calling it again is fine."""
        await self._home.close()

    def close_sync(self) -> None:
        """:meth:`close` from code without an event loop."""
        self._home.close_sync()

    async def __aenter__(self) -> Self:
        self._stays.append(await self._home.open())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stays.pop():
            await self._home.close()

    async def publish(self, publishes: list[Publish]) -> None:
        """Store messages that are sealed already, in as few round trips as the broker allows.

        :raises PublishError: one was not, or may not have been, stored; others may have been.
        """
        errors = await self._home.run(
            lambda residence: residence.coalescer.publish_many(publishes), connected=False
        )
        for error in errors:
            if error is not None:
                raise error

    async def run(self, work: Callable[[Wiring], Awaitable[T]]) -> T:
        """``work`` done with the open wiring, on the home loop.

        :raises StemError: the Stem is closed, or its home loop does not run at the moment.
        """
        return await self._home.run(lambda residence: work(residence.wiring))

    def run_sync(self, work: Callable[[Wiring], Awaitable[T]]) -> T:
        """:meth:`run` from code without an event loop; not from the home loop's own thread."""
        return self._home.run_sync(lambda residence: work(residence.wiring))

    async def wiring_here(self) -> Wiring:
        """An open wiring of the running loop: the Stem's own when this is its home, or it has none yet, else a
        copy with adapters of its own, which the caller closes.
        """
        if not self._home.is_open:
            await self._home.open()
        residence = self._home.here()
        if residence is not None:
            return residence.wiring
        wiring = self.wiring.copy()
        await wiring.open()
        return wiring
