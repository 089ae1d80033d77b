"""Concurrent publishes of one loop, gathered into batches while a batch is in flight.

A lone publish is sent at once, by its caller; what arrives meanwhile waits for it and goes together. Each publish has
its own deadline and its own fate: a caller that gives up, or a message that is refused, touches nobody else.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

from stem_core.envelope import Message
from stem_core.errors import AdapterError, PublishError, StemError
from stem_core.options import TaskRetryPolicy
from stem_core.retry import backoff
from stem_core.sending import Publish, out_of_reach, record_refused, send, unknown_fate
from stem_core.wiring import Wiring

__all__ = ["MOST_AT_ONCE", "Coalescer"]

#: Most messages of one batch: large enough to hide a round trip, small enough not to hold up a store.
MOST_AT_ONCE: Final = 1000
#: How a publish is retried when ``retry=True`` comes without a policy.
DEFAULT_RETRY: Final = TaskRetryPolicy(backoff=True, default_delay=0.2, backoff_max=5.0, max_retries=3)
#: What a message with an idempotent publish gets unasked: one more try at once.
_ONCE_MORE: Final = TaskRetryPolicy(max_retries=1)


class Waiting:
    """A publish and who waits for it: behind others through a future, or alone in the task that sends it."""

    __slots__ = ("deadline", "future", "in_flight", "late", "publish", "task")

    def __init__(self, publish: Publish, deadline: float) -> None:
        self.publish = publish
        self.deadline = deadline
        self.in_flight = False
        self.future: asyncio.Future[None] | None = None
        self.task: asyncio.Task[Any] | None = None
        self.late = False
        """Whether the task was cancelled because the deadline came."""

    @property
    def over(self) -> bool:
        return self.task is None if self.future is None else self.future.done()


class Coalescer:
    """Publishes through one wiring, on its loop."""

    def __init__(self, wiring: Wiring, timeout: float, open: Callable[[], Awaitable[None]]) -> None:
        """:param timeout: seconds after which one try of a publish fails.
        :param open: connects the wiring; called before the first publish, and after one that could not.
        """
        self.timeout = timeout
        self._wiring = wiring
        self._open = open
        self._gathered: deque[Waiting] = deque()
        self._outstanding: deque[Waiting] = deque()  # in the order of their deadlines
        self._alarm: asyncio.TimerHandle | None = None
        self._busy = False
        """Whether something is on its way: what comes now gathers behind it."""
        self._sender: asyncio.Task[None] | None = None
        self._idle: asyncio.Future[None] | None = None
        """What :meth:`close` waits for."""
        self._closed = False

    async def publish(self, publish: Publish) -> None:
        """Store one message, with the retries it asks for.

        :raises PublishError: it was refused (recorded as ``publish-failed``), or its fate is unknown.
        :raises PayloadTooLarge: the store found it too large.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            await self._once(publish, loop)
        except StemError as error:
            await self._try_again(publish, error, started)

    async def publish_many(self, publishes: list[Publish]) -> list[StemError | None]:
        """Store messages in as few round trips as may be, in order; None or its error for each."""
        started = asyncio.get_running_loop().time()
        answers: list[StemError | None] = []
        for start in range(0, len(publishes), MOST_AT_ONCE):
            answers += await self._send_in_time(publishes[start : start + MOST_AT_ONCE])
        failed = [(i, error) for i, error in enumerate(answers) if error is not None]
        if failed:
            again = (self._try_again(publishes[i], error, started) for i, error in failed)
            for (i, _), answer in zip(
                failed, await asyncio.gather(*again, return_exceptions=True), strict=True
            ):
                if answer is not None and not isinstance(answer, StemError):
                    raise answer
                answers[i] = answer
        return answers

    async def ready(self) -> None:
        """Connect, if that is still to be done.

        :raises AdapterError: a store is out of reach.
        """
        if not self._wiring.is_open:
            await self._open()

    async def close(self) -> None:
        """Wait for what is gathered and in flight; nothing more is taken."""
        self._closed = True
        if self._busy:
            self._idle = self._idle or asyncio.get_running_loop().create_future()
            await asyncio.shield(self._idle)
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    async def _try_again(self, publish: Publish, error: StemError, started: float) -> None:
        """Repeat a publish that failed, as far as it may be; in the end raise what it failed with."""
        loop = asyncio.get_running_loop()
        policy = publish.retry or _ONCE_MORE
        tries = 0
        while tries < _limit(policy) and _worth_another(error, publish):
            if publish.retry is None and loop.time() - started >= self.timeout:
                break
            await asyncio.sleep(backoff(policy, tries, random.random()))
            tries += 1
            try:
                return await self._once(publish, loop)
            except StemError as another:
                error = another
        if getattr(error, "outcome", "refused") == "refused" and self._wiring.is_open:
            await record_refused(self._wiring, publish, error)
        raise error

    async def _once(self, publish: Publish, loop: asyncio.AbstractEventLoop) -> None:
        """Send it now, or with what gathers behind what is being sent."""
        if self._closed:
            raise StemError(f"Task {publish.envelope.id} was not published: this Stem was closed.")
        waiting = Waiting(publish, loop.time() + self.timeout)
        self._outstanding.append(waiting)
        if self._alarm is None:  # one for all that are outstanding: most are done long before it rings
            self._alarm = loop.call_at(waiting.deadline, self._expire, loop)
        if self._busy:
            waiting.future = loop.create_future()
            self._gathered.append(waiting)
            await waiting.future
        else:
            self._busy = True
            try:
                await self._send_alone(waiting)
            finally:
                waiting.task = None
                self._forget_done()
                self._go_on(loop)

    async def _send_alone(self, waiting: Waiting) -> None:
        """What ``asyncio.timeout`` does, with the timer that all share: one of its own costs as much as the sealing."""
        task = asyncio.current_task()
        assert task is not None  # nothing else can await
        waiting.task, before = task, task.cancelling()
        error: StemError | None
        try:
            (error,) = await self._send([waiting.publish])
        except asyncio.CancelledError as cancelled:
            if not waiting.late or task.uncancel() > before:
                raise  # it was somebody else
            error = self._too_late(waiting.publish, cancelled)
        else:
            if waiting.late:
                task.uncancel()
        if error is not None:
            raise error

    def _go_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """Send what has gathered behind a lone publish."""
        if self._gathered:
            # A task of its own: whoever is cancelled, the batch goes on.
            self._sender = loop.create_task(self._send_gathered())
        else:
            self._rest()

    def _rest(self) -> None:
        self._busy, self._sender = False, None
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    async def _send_gathered(self) -> None:
        try:
            while batch := self._next_batch():
                errors = await self._send_in_time([each.publish for each in batch])
                for waiting, error in zip(batch, errors, strict=True):
                    if waiting.future is None or waiting.future.done():
                        continue
                    if error is None:
                        waiting.future.set_result(None)
                    else:
                        waiting.future.set_exception(error)
                self._forget_done()
        finally:
            self._rest()

    def _next_batch(self) -> list[Waiting]:
        """What is gathered, without those whose callers are gone."""
        batch: list[Waiting] = []
        while self._gathered and len(batch) < MOST_AT_ONCE:
            waiting = self._gathered.popleft()
            if not waiting.over:
                waiting.in_flight = True
                batch.append(waiting)
        return batch

    def _forget_done(self) -> None:
        while self._outstanding and self._outstanding[0].over:
            self._outstanding.popleft()

    async def _send_in_time(self, batch: list[Publish]) -> list[StemError | None]:
        try:
            async with asyncio.timeout(self.timeout):
                return await self._send(batch)
        except TimeoutError as error:
            return [self._too_late(each, error) for each in batch]

    async def _send(self, batch: list[Publish]) -> list[StemError | None]:
        if self._wiring.hooks("stem_before_publish"):
            for each in batch:
                self._wiring.emit("stem_before_publish", envelope=each.envelope)
        try:
            await self.ready()
            return await send(self._wiring, batch)
        except AdapterError as error:
            return [out_of_reach(each, error) for each in batch]
        except StemError as error:
            return [error] * len(batch)

    def _too_late(self, publish: Publish, error: BaseException) -> StemError:
        late = TimeoutError()
        late.__cause__ = error
        return unknown_fate(publish, late) if self._wiring.is_open else out_of_reach(publish, late)

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        """Fail every publish whose deadline has come; ring again for the next one."""
        self._alarm = None
        now = loop.time()
        outstanding = self._outstanding
        while outstanding and (outstanding[0].over or outstanding[0].deadline <= now):
            waiting = outstanding.popleft()
            if waiting.over:
                continue
            if waiting.future is None:
                waiting.late = True
                if waiting.task is not None:
                    waiting.task.cancel()
            elif not self._wiring.is_open:
                waiting.future.set_exception(out_of_reach(waiting.publish, TimeoutError()))
            elif waiting.in_flight:
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
    """Whether trying again can help and do no harm. Unasked, only what was sent to a store in reach is repeated."""
    if not publish.message.once or not isinstance(error, PublishError):
        return False
    return publish.retry is not None or error.outcome == "unknown"


def _never_sent(message: Message, timeout: float) -> PublishError:
    return PublishError(
        f"Message {message.id} for queue {message.queue!r} was not sent: those before it took {timeout:g} s.",
        "refused",
    )
