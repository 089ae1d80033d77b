"""Concurrent publishes of one loop, gathered into batches while a batch is in flight.

A lone publish is sent at once; what arrives meanwhile waits for its end and goes together. Where the store can be
sent to without waiting (:class:`~stem_core.ports.Starter`), a batch that is large enough does not wait: it is sent
by the caller that completes it, and the store works on it while the next calls are made ready. Each publish has its
own deadline and its own fate: a caller that gives up, or a message that is refused, touches nobody else.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

from stem_core.envelope import Message
from stem_core.errors import AdapterError, PublishError, StemError
from stem_core.options import TaskRetryPolicy
from stem_core.retry import backoff
from stem_core.sending import Publish, note_stored, out_of_reach, record_refused, send, start, unknown_fate
from stem_core.wiring import Wiring

__all__ = ["MOST_AT_ONCE", "Coalescer"]

#: Most messages of one batch: large enough to hide a round trip, small enough not to hold up a store.
MOST_AT_ONCE: Final = 1000
#: How a publish is retried when ``retry=True`` comes without a policy.
DEFAULT_RETRY: Final = TaskRetryPolicy(backoff=True, default_delay=0.2, backoff_max=5.0, max_retries=3)
#: What a message with an idempotent publish gets unasked: one more try at once.
_ONCE_MORE: Final = TaskRetryPolicy(max_retries=1)


class Batch:
    """Publishes that go together; of each its deadline and the future its caller waits for."""

    __slots__ = ("deadlines", "futures", "in_flight", "publishes")

    def __init__(self) -> None:
        self.publishes: list[Publish] = []
        self.futures: list[asyncio.Future[None]] = []
        self.deadlines: list[float] = []
        self.in_flight = False

    def add(self, publish: Publish, deadline: float, future: asyncio.Future[None]) -> None:
        self.publishes.append(publish)
        self.futures.append(future)
        self.deadlines.append(deadline)

    def leave_out_the_gone(self) -> None:
        """Forget those whose callers gave up, or whose time is up."""
        there = [n for n, future in enumerate(self.futures) if not future.done()]
        if len(there) < len(self.futures):
            self.publishes = [self.publishes[n] for n in there]
            self.futures = [self.futures[n] for n in there]
            self.deadlines = [self.deadlines[n] for n in there]

    def end(self, errors: Sequence[StemError | None]) -> None:
        """Tell each caller that is still there."""
        for future, error in zip(self.futures, errors, strict=True):
            if future.done():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)


class Coalescer:
    """Publishes through one wiring, on its loop."""

    def __init__(
        self,
        wiring: Wiring,
        timeout: float,
        open: Callable[[], Awaitable[None]],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """:param timeout: seconds after which one try of a publish fails.
        :param open: connects the wiring; called before the first publish, and after one that could not.
        :param loop: the one that everything here is called on.
        """
        self.timeout = timeout
        self._wiring = wiring
        self._open = open
        self._loop = loop
        self._gathered: deque[Batch] = deque()
        """Those to be sent; the last one is still added to, until it is full."""
        self._outstanding: dict[Batch, None] = {}
        """Those and the ones in flight, oldest first."""
        self._alarm: asyncio.TimerHandle | None = None
        self._in_flight = 0
        """Batches on their way."""
        self._must_wait = False
        """Whether nothing more can be sent before one of them has landed."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle: asyncio.Future[None] | None = None
        """What :meth:`close` waits for."""
        self._closed = False

    async def publish(self, publish: Publish) -> None:
        """Store one message, with the retries it asks for.

        :raises PublishError: it was refused (recorded as ``publish-failed``), or its fate is unknown.
        :raises PayloadTooLarge: the store found it too large.
        """
        try:
            await self.once(publish)
        except StemError as error:
            await self.again(publish, error)

    async def publish_many(self, publishes: list[Publish]) -> list[StemError | None]:
        """Store messages in as few round trips as may be, in order; None or its error for each."""
        self._announce(publishes)
        answers = await self._send_all(publishes)
        failed = [(i, error) for i, error in enumerate(answers) if error is not None]
        if failed:
            again = (self.again(publishes[i], error) for i, error in failed)
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
        if self._in_flight:
            self._idle = self._idle or self._loop.create_future()
            await asyncio.shield(self._idle)
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    async def again(self, publish: Publish, error: StemError) -> None:
        """Repeat a publish that failed, as far as it may be; in the end raise what it failed with."""
        policy = publish.retry or _ONCE_MORE
        tries = 0
        while tries < _limit(policy) and _worth_another(error, publish):
            await asyncio.sleep(backoff(policy, tries, random.random()))
            tries += 1
            try:
                return await self.once(publish)
            except StemError as another:
                error = another
        if getattr(error, "outcome", "refused") == "refused" and self._wiring.is_open:
            await record_refused(self._wiring, publish, error)
        raise error

    def _announce(self, publishes: Sequence[Publish]) -> None:
        if self._wiring.hooks("stem_before_publish"):
            for each in publishes:
                self._wiring.emit("stem_before_publish", envelope=each.envelope)

    # one by one

    def once(self, publish: Publish) -> asyncio.Future[None]:
        """The first half of :meth:`publish`: one try, now or with what gathers behind what is being sent.

        Whoever waits for the future without a coroutine between gives an error to :meth:`again`.
        """
        if self._closed:
            raise StemError(f"Task {publish.envelope.id} was not published: this Stem was closed.")
        self._announce([publish])
        future: asyncio.Future[None] = self._loop.create_future()
        deadline = self._loop.time() + self.timeout
        most = self._enough()
        if not self._gathered or len(self._gathered[-1].futures) >= most:
            self._gathered.append(Batch())
            self._outstanding[self._gathered[-1]] = None
        batch = self._gathered[-1]
        batch.add(publish, deadline, future)
        if self._alarm is None:  # one for all that are outstanding: most are done long before it rings
            self._alarm = self._loop.call_at(deadline, self._expire)
        if not self._in_flight or (len(batch.futures) >= most and not self._must_wait):
            self._go_on()
        return future

    def _enough(self) -> int:
        """Messages of one batch that does not wait."""
        starter = self._wiring.starter
        return MOST_AT_ONCE if starter is None else min(starter.enough, MOST_AT_ONCE)

    def _go_on(self) -> None:
        """Send what has gathered: at once as far as that can be, else one batch when nothing is in flight."""
        while self._gathered and not self._must_wait:
            batch = self._gathered[0]
            batch.leave_out_the_gone()
            if not batch.publishes:
                del self._outstanding[self._gathered.popleft()]
                continue
            begun = start(self._wiring, batch.publishes, self.timeout, partial(self._landed, batch))
            if not begun:
                self._must_wait = True
                if self._in_flight:  # it must not overtake
                    return
            self._gathered.popleft()
            self._in_flight += 1
            batch.in_flight = True
            if not begun:
                self._see_through(batch)

    def _landed(self, batch: Batch, answers: Sequence[bool] | Exception) -> None:
        if isinstance(answers, Exception):
            self._see_through(batch, answers)
            return
        note_stored(self._wiring, batch.publishes, answers)
        batch.end([None] * len(batch.futures))
        self._has_ended(batch)

    def _see_through(self, batch: Batch, failure: Exception | None = None) -> None:
        """Send a batch, or see to what failed, in a task of its own: whoever is cancelled, it goes on."""
        task = self._loop.create_task(self._send_and_tell(batch, failure))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send_and_tell(self, batch: Batch, failure: Exception | None) -> None:
        try:
            batch.end(await self._send_in_time(batch.publishes, failure))
        finally:
            self._has_ended(batch)

    def _has_ended(self, batch: Batch) -> None:
        """One batch less is in flight; what gathered behind it goes."""
        del self._outstanding[batch]
        self._in_flight -= 1
        self._must_wait = False
        self._go_on()
        if not self._in_flight and self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def _expire(self) -> None:
        """Fail every publish whose deadline has come; ring again for the next one."""
        self._alarm = None
        now = self._loop.time()
        for batch in self._outstanding:
            for publish, deadline, future in zip(
                batch.publishes, batch.deadlines, batch.futures, strict=True
            ):
                if future.done():
                    continue
                if deadline > now:
                    self._alarm = self._loop.call_at(deadline, self._expire)
                    return
                future.set_exception(self._expired(publish, in_flight=batch.in_flight))

    def _expired(self, publish: Publish, *, in_flight: bool) -> StemError:
        if not self._wiring.is_open:
            return out_of_reach(publish, TimeoutError())
        if in_flight:
            return unknown_fate(publish, TimeoutError())
        return _never_sent(publish.message, self.timeout)

    # batches

    async def _send_all(self, publishes: list[Publish]) -> list[StemError | None]:
        """Send in order: batches at once as far as that can be, else one that is waited for."""
        answers: list[StemError | None] = []
        under_way: deque[tuple[list[Publish], asyncio.Future[Sequence[bool] | Exception]]] = deque()
        at, enough = 0, self._enough()
        while at < len(publishes) or under_way:
            batch, future = publishes[at : at + enough], self._loop.create_future()
            if batch and start(self._wiring, batch, self.timeout, partial(_tell, future)):
                under_way.append((batch, future))
                at += len(batch)
            elif under_way:
                batch, future = under_way.popleft()
                ended = await future
                if isinstance(ended, Exception):
                    answers += await self._send_in_time(batch, ended)
                else:
                    note_stored(self._wiring, batch, ended)
                    answers += [None] * len(batch)
            else:
                batch = publishes[at : at + MOST_AT_ONCE]
                answers += await self._send_in_time(batch)
                at += len(batch)
        return answers

    async def _send_in_time(
        self, batch: list[Publish], failure: Exception | None = None
    ) -> list[StemError | None]:
        """Send a batch, or see to what it failed with; None or its error for each."""
        try:
            async with asyncio.timeout(self.timeout):
                await self.ready()
                return await send(self._wiring, batch, failure)
        except TimeoutError as error:
            return [self._too_late(each, error) for each in batch]
        except AdapterError as error:
            return [out_of_reach(each, error) for each in batch]
        except StemError as error:
            return [error] * len(batch)

    def _too_late(self, publish: Publish, error: BaseException) -> StemError:
        late = TimeoutError()
        late.__cause__ = error
        return unknown_fate(publish, late) if self._wiring.is_open else out_of_reach(publish, late)


def _tell(future: asyncio.Future[Sequence[bool] | Exception], answers: Sequence[bool] | Exception) -> None:
    if not future.done():  # else who waited for it gave up
        future.set_result(answers)


def _limit(policy: TaskRetryPolicy) -> int:
    if policy.max_retries is not None:
        return policy.max_retries
    return DEFAULT_RETRY.max_retries or 0


def _worth_another(error: StemError, publish: Publish) -> bool:
    """Whether trying again can help and do no harm. Unasked, only what failed in time in a store in reach is repeated."""
    if not publish.message.once or not isinstance(error, PublishError):
        return False
    in_time = not isinstance(error.__cause__, TimeoutError)
    return publish.retry is not None or (error.outcome == "unknown" and in_time)


def _never_sent(message: Message, timeout: float) -> PublishError:
    return PublishError(
        f"Message {message.id} for queue {message.queue!r} was not sent: those before it took {timeout:g} s.",
        "refused",
    )
