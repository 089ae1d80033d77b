"""Concurrent publishes of one loop, gathered into batches while a batch is in flight.

A lone publish is sent at once; what arrives meanwhile waits for it and goes together. Each publish has its
own deadline and its own fate: a caller that gives up, or a message that is refused, touches nobody else.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from typing import Final

from stem_core.envelope import Message
from stem_core.errors import AdapterError, PublishError, StemError
from stem_core.options import TaskRetryPolicy
from stem_core.retry import backoff
from stem_core.sending import Publish, record_refused, send, unknown_fate
from stem_core.wiring import Wiring

__all__ = ["MOST_AT_ONCE", "Coalescer"]

#: Most messages of one batch: large enough to hide a round trip, small enough not to hold up a store.
MOST_AT_ONCE: Final = 1000
#: How a publish is retried when ``retry=True`` comes without a policy.
DEFAULT_RETRY: Final = TaskRetryPolicy(backoff=True, default_delay=0.2, backoff_max=5.0, max_retries=3)
#: What a message with an idempotent publish gets unasked: one more try at once.
_ONCE_MORE: Final = TaskRetryPolicy(max_retries=1)


class Waiting:
    """A publish and the caller that waits for it."""

    __slots__ = ("deadline", "future", "in_flight", "publish")

    def __init__(self, publish: Publish, future: asyncio.Future[None], deadline: float) -> None:
        self.publish = publish
        self.future = future
        self.deadline = deadline
        self.in_flight = False


class Coalescer:
    """Publishes through one wiring, on its loop."""

    def __init__(self, wiring: Wiring, timeout: float) -> None:
        """:param timeout: seconds after which one try of a publish fails."""
        self._wiring = wiring
        self.timeout = timeout
        self._gathered: deque[Waiting] = deque()
        self._outstanding: deque[Waiting] = deque()  # in the order of their deadlines
        self._alarm: asyncio.TimerHandle | None = None
        self._sender: asyncio.Task[None] | None = None

    async def publish(self, publish: Publish) -> None:
        """Store one message, with the retries it asks for.

        :raises PublishError: it was refused (recorded as ``publish-failed``), or its fate is unknown.
        :raises PayloadTooLarge: the store found it too large.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        policy = publish.retry or (_ONCE_MORE if publish.message.once else None)
        tries = 0
        while True:
            try:
                return await self._submit(publish, loop)
            except StemError as error:
                again = policy is not None and tries < _limit(policy) and _worth_another(error, publish)
                late = publish.retry is None and loop.time() - started >= self.timeout
                if not again or late or policy is None:
                    if getattr(error, "outcome", "refused") == "refused":
                        await record_refused(self._wiring, publish, error)
                    raise
            await asyncio.sleep(backoff(policy, tries, random.random()))
            tries += 1

    async def publish_many(self, publishes: list[Publish]) -> list[StemError | None]:
        """Store messages in as few round trips as may be, in order; None or its error for each."""
        answers: list[StemError | None] = []
        for start in range(0, len(publishes), MOST_AT_ONCE):
            batch = publishes[start : start + MOST_AT_ONCE]
            answers += await self._send(batch)
        for publish, error in zip(publishes, answers, strict=True):
            if error is not None and getattr(error, "outcome", "refused") == "refused":
                await record_refused(self._wiring, publish, error)
        return answers

    async def close(self) -> None:
        """Wait for what is gathered and in flight."""
        while self._sender is not None:
            await asyncio.wait({self._sender})
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _submit(self, publish: Publish, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
        waiting = Waiting(publish, loop.create_future(), loop.time() + self.timeout)
        self._gathered.append(waiting)
        self._outstanding.append(waiting)
        if self._alarm is None:
            self._alarm = loop.call_at(waiting.deadline, self._expire, loop)
        if self._sender is None:
            # A task of its own: whoever is cancelled, the batch goes on.
            self._sender = loop.create_task(self._send_gathered())
        return waiting.future

    async def _send_gathered(self) -> None:
        try:
            while batch := self._next_batch():
                errors = await self._send([each.publish for each in batch])
                for waiting, error in zip(batch, errors, strict=True):
                    if waiting.future.done():
                        continue
                    if error is None:
                        waiting.future.set_result(None)
                    else:
                        waiting.future.set_exception(error)
                while self._outstanding and self._outstanding[0].future.done():
                    self._outstanding.popleft()
        finally:
            self._sender = None

    def _next_batch(self) -> list[Waiting]:
        """What is gathered, without those whose callers are gone."""
        batch: list[Waiting] = []
        while self._gathered and len(batch) < MOST_AT_ONCE:
            waiting = self._gathered.popleft()
            if not waiting.future.done():
                waiting.in_flight = True
                batch.append(waiting)
        return batch

    async def _send(self, batch: list[Publish]) -> list[StemError | None]:
        if self._wiring.hooks("stem_before_publish"):
            for each in batch:
                self._wiring.emit("stem_before_publish", envelope=each.envelope)
        try:
            async with asyncio.timeout(self.timeout):
                return await send(self._wiring, batch)
        except TimeoutError as error:
            return [unknown_fate(each, error) for each in batch]

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        """Fail every publish whose deadline has come; ring again for the next one."""
        self._alarm = None
        now = loop.time()
        outstanding = self._outstanding
        while outstanding and (outstanding[0].future.done() or outstanding[0].deadline <= now):
            waiting = outstanding.popleft()
            if waiting.future.done():
                continue
            if waiting.in_flight:
                waiting.future.set_exception(unknown_fate(waiting.publish, TimeoutError()))
            else:
                waiting.future.set_exception(_never_sent(waiting.publish.message, self.timeout))
        if outstanding:
            self._alarm = loop.call_at(outstanding[0].deadline, self._expire, loop)


def _limit(policy: TaskRetryPolicy) -> int:
    if policy.max_retries is not None:
        return policy.max_retries
    return DEFAULT_RETRY.max_retries or 0


def _worth_another(error: StemError, publish: Publish) -> bool:
    """Whether trying again can help: the store was out of reach, and repeating does no harm."""
    if isinstance(error, PublishError):
        return publish.message.once and (publish.retry is not None or error.outcome == "unknown")
    return isinstance(error, AdapterError)


def _never_sent(message: Message, timeout: float) -> PublishError:
    return PublishError(
        f"Message {message.id} for queue {message.queue!r} was not sent: those before it took {timeout:g} s.",
        "refused",
    )
