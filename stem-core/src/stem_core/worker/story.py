"""The story of one run: its input is fetched, its arguments decoded, the handler called, its end decided.

Each run is one asyncio task, so that it has its own ``contextvars`` and can be cancelled.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from stem_core.clock import Clock, now_of
from stem_core.context import Controls, RetryTask, TaskContext, enter_task
from stem_core.envelope import Ack, Settlement
from stem_core.errors import DecodeError, SoftTimeLimitExceeded
from stem_core.names import DeadReason
from stem_core.retry import Again, RetryRequest, class_names, decide
from stem_core.status import TaskError
from stem_core.worker import inputs, outcome
from stem_core.worker.admission import Admission
from stem_core.worker.failures import HARD_LIMIT, error_of
from stem_core.worker.handlers import Handler
from stem_core.worker.limits import Interruptible, soft_limit_error
from stem_core.worker.outcome import Cancelled, Failed, Finish, Retried, Succeeded
from stem_core.worker.payloads import decode_arguments, encode_result, keeps_result
from stem_core.worker.processes import ChildDied, ChildNotReady, RemoteError
from stem_core.worker.run import Run, Stop
from stem_core.worker.scopes import entered
from stem_core.worker.threads import ThreadExecutor

__all__ = ["Story"]

_log = logging.getLogger("stem.worker")
#: A lease so short that it is as good as ended, in seconds.
_AT_ONCE = 0.001
#: Seconds after which a child process is tried again that could not make its resources.
_NOT_READY_DELAY = 5.0


class ProcessRunner(Protocol):
    """Runs a handler in a process of its own."""

    async def run(self, run: Run, gathered: inputs.Gathered) -> tuple[bytes | None, str | None]: ...


class Story:
    """Runs deliveries to their end. One per worker; everything about one run is in its :class:`Run`."""

    def __init__(
        self,
        wiring: Any,
        *,
        threads: ThreadExecutor,
        processes: ProcessRunner,
        controls: Callable[[Run], Controls],
        state: dict[str, Any],
        max_deliveries: int,
        clock: Clock,
        announce: Callable[[Run], None],
        crashed: Callable[[], None],
        admission: Admission,
    ) -> None:
        self._wiring = wiring
        self._threads = threads
        self._processes = processes
        self._controls = controls
        self._state = state
        self._max_deliveries = max_deliveries
        self._clock = clock
        self._now = now_of(clock)
        self._announce = announce
        self._admission = admission
        self._crashed = crashed
        self._scopes = tuple(wiring.hooks("stem_task_scope"))
        self._observed = bool(wiring.hooks("stem_task_started"))
        self._namespace: str = wiring.namespace

    async def tell(self, run: Run) -> Finish | None:
        """Run it; what is to be stored at its end, None when that is nobody's business here any more."""
        run.begun = True
        envelope, handler = run.envelope, run.handler
        assert handler is not None
        try:
            gathered = inputs.NOTHING
            if needs_preparation(run):
                prepared = await self._prepare(run)
                if not isinstance(prepared, inputs.Gathered):
                    return prepared
                gathered = prepared
            run.started_at = self._now()
            self._announce(run)
            if handler.isolation == "process" or (envelope.time_limit is not None and handler.kind == "sync"):
                try:
                    payload, chain = await self._processes.run(run, gathered)
                except ChildNotReady as error:
                    return self._child_not_ready(run, error)
                except ChildDied as error:
                    stop = run.stopped()
                    return await self._child_died(run, error) if stop is None else self._cut_short(run, stop)
            else:
                value = await self._call(run, handler, gathered)
                if (stop := run.stopped()) is not None:  # it swallowed its cancellation
                    return self._cut_short(run, stop)
                try:
                    payload, chain = self._encoded(run, handler, value)
                except Exception as error:  # noqa: BLE001 - any encoder may be at fault, and a second run would end the same
                    return self.failure(run, error_of(error), class_names(error), None, DeadReason.REJECTED)
        except asyncio.CancelledError as error:
            if (stop := run.stopped()) is not None:
                return self._cut_short(run, stop)
            current = asyncio.current_task()
            if current is not None and current.cancelling():  # whoever kills the loop gets his way
                raise
            return self._raised(run, error)  # the handler's own: it awaited something that was cancelled
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - a handler may raise anything
            if (stop := run.stopped()) is not None:
                return self._cut_short(run, stop)
            return self._raised(run, error)
        finally:
            if envelope.limits is not None:
                await self._admission.leave(run)
        seconds = time.monotonic() - (run.started or time.monotonic())
        end = Succeeded(payload, chain, seconds)
        return outcome.succeeded(envelope, run.delivery, end, started_at=run.started_at, now=self._now())

    async def _prepare(self, run: Run) -> inputs.Gathered | Finish | None:
        """What few runs need before they start."""
        envelope = run.envelope
        if run.stop is not None:  # before its first step
            return self._cut_short(run, run.stop)
        if run.not_before:
            await asyncio.sleep(run.not_before)
        if envelope.expires is not None and envelope.expires <= self._now():  # while it waited for a slot
            return outcome.cancelled(
                envelope, run.delivery, Cancelled("expired"), started_at=None, now=self._now()
            )
        delay = await self._admission.enter(run)
        if delay is not None:
            return self._given_back(run, delay)
        if not envelope.acks_late and not await self._ack_now(run):
            return None
        if envelope.input is None:
            return inputs.NOTHING
        found = await inputs.gather(envelope.input, self._wiring.backend)
        return found if isinstance(found, inputs.Gathered) else self._without_input(run, found)

    def _call(self, run: Run, handler: Handler, gathered: inputs.Gathered) -> Awaitable[Any]:
        """The handler, called with its arguments; to be awaited."""
        args, kwargs = decode_arguments(self._wiring.encoders, run.envelope, self._namespace)
        if gathered is not inputs.NOTHING:
            args = inputs.decode(gathered, self._wiring.encoders, self._namespace) + args
        args, kwargs = handler.convert(args, kwargs)
        run.make_context = self._context
        enter_task(run)
        if handler.wants_context:
            args.insert(0, run.task_context())
        if self._scopes:
            return self._in_scopes(run, handler, args, kwargs)
        return self._execute(run, handler, args, kwargs)

    def _execute(self, run: Run, handler: Handler, args: list[Any], kwargs: dict[str, Any]) -> Awaitable[Any]:
        envelope = run.envelope
        if self._observed:
            self._wiring.emit("stem_task_started", envelope=envelope, attempt=run.delivery.attempt)
        if handler.kind == "sync":
            return self._in_thread(run, lambda: handler.function(*args, **kwargs))
        run.started = time.monotonic()
        body: Awaitable[Any] = handler.function(*args, **kwargs)
        if envelope.soft_time_limit is None and envelope.time_limit is None:
            return body
        return self._within_limits(run, Interruptible(body))  # type: ignore[arg-type]

    async def _in_scopes(self, run: Run, handler: Handler, args: list[Any], kwargs: dict[str, Any]) -> Any:
        async with entered(self._scopes, run.task_context()):
            return await self._execute(run, handler, args, kwargs)

    async def _within_limits(self, run: Run, body: Interruptible[Any]) -> Any:
        loop = asyncio.get_running_loop()
        soft, hard = run.envelope.soft_time_limit, run.envelope.time_limit
        timers = []
        if soft is not None:
            timers.append(loop.call_later(soft, lambda: body.interrupt(soft_limit_error(soft))))
        if hard is not None:
            timers.append(loop.call_later(hard, run.cut, Stop.HARD_LIMIT))
        try:
            return await body
        finally:
            for timer in timers:
                timer.cancel()

    async def _in_thread(self, run: Run, call: Callable[[], Any]) -> Any:
        loop = asyncio.get_running_loop()
        soft = run.envelope.soft_time_limit
        timers: list[asyncio.TimerHandle] = []

        def start_timer() -> None:
            if soft is not None and not job.future.done():
                timers.append(loop.call_later(soft, job.throw, SoftTimeLimitExceeded))

        def on_start() -> None:
            run.started = time.monotonic()
            if soft is not None:
                loop.call_soon_threadsafe(start_timer)

        job = self._threads.submit(call, on_start)
        try:
            return await job.future
        except SoftTimeLimitExceeded as error:
            if error.args:
                raise
            raise SoftTimeLimitExceeded(f"the soft time limit of {soft:g} s ended") from error
        except asyncio.CancelledError:
            job.abandon()
            if run.stop is Stop.LEASE_LOST or run.stop is Stop.REVOKED:
                job.throw(SoftTimeLimitExceeded)
            raise
        finally:
            for timer in timers:
                timer.cancel()

    def _encoded(self, run: Run, handler: Handler, value: Any) -> tuple[bytes | None, str | None]:
        envelope = run.envelope
        if self._wiring.backend is None or not keeps_result(envelope):
            return None, None
        chain = envelope.result_encoder or handler.result_encoder
        encoders, limit = self._wiring.encoders, self._wiring.max_payload
        return encode_result(encoders, envelope, chain, value, self._namespace, limit), chain

    def _context(self, run: Run) -> TaskContext:
        envelope, delivery = run.envelope, run.delivery
        return TaskContext(
            id=envelope.id,
            name=envelope.name,
            queue=envelope.queue,
            controls=self._controls(run),
            attempt=delivery.attempt,
            generation=delivery.generation,
            headers=envelope.headers,
            meta=envelope.meta,
            root=envelope.root,
            state=self._state,
            clock=self._clock,
        )

    async def _ack_now(self, run: Run) -> bool:
        """``acks_late=False``: the message is gone before the handler starts, whatever happens then."""
        run.finishing, run.deadline = True, float("inf")  # there is no lease to renew any more
        (kept,) = await self._wiring.broker.settle([Settlement(run.receipt, Ack())])
        return bool(kept)

    # What ends other than with a value become

    async def _child_died(self, run: Run, died: ChildDied) -> Finish | None:
        """Its message alone is charged: handed out again at once, until that was often enough."""
        self._crashed()
        envelope, delivery = run.envelope, run.delivery
        _log.error("Task %s (%s): %s", envelope.id, envelope.name, died)
        if delivery.deliveries >= self._max_deliveries or run.finishing:
            error = TaskError("stem_core.CrashLoop", f"{died} (hand-out {delivery.deliveries})")
            return self.failure(run, error, (error.type,), None, DeadReason.CRASH_LOOP)
        # Only an ended lease counts as a hand-out that came to nothing; so end it.
        await self._wiring.broker.extend([run.receipt], _AT_ONCE)
        return None

    def _child_not_ready(self, run: Run, error: ChildNotReady) -> Finish:
        """Its message is not charged: what is missing may be back in a while."""
        if run.finishing:  # acked before it started: it cannot be given back
            return self.failure(run, error.error, (error.error.type,), None, DeadReason.REJECTED)
        return self._given_back(run, _NOT_READY_DELAY)

    def _given_back(self, run: Run, delay: float) -> Finish:
        longest = self._wiring.broker.capabilities.max_delay
        return outcome.given_back(run.delivery, delay if longest is None else min(delay, longest))

    def _raised(self, run: Run, error: BaseException) -> Finish:
        if isinstance(error, RemoteError):
            return self.failure(run, error.error, error.names, error.request, error.reason)
        request = error.request if isinstance(error, RetryTask) else None
        names = class_names(error)
        cause = error.__cause__ if request is not None and error.__cause__ is not None else error
        return self.failure(run, error_of(cause), names, request, _forced_reason(error, run))

    def failure(
        self,
        run: Run,
        error: TaskError,
        names: tuple[str, ...],
        request: RetryRequest | None,
        reason: DeadReason | None,
    ) -> Finish:
        """Retried or over, as the policy says; ``reason`` forbids a retry."""
        envelope, delivery = run.envelope, run.delivery
        seconds = None if run.started is None else time.monotonic() - run.started
        if reason is None:
            verdict = decide(
                names,
                attempt=delivery.attempt,
                max_retries=envelope.max_retries if envelope.acks_late else 0,
                policy=envelope.retry_policy if envelope.acks_late else None,
                request=request,
                random=random.random(),
            )
            if isinstance(verdict, Again):
                longest = self._wiring.broker.capabilities.max_delay
                delay = verdict.delay
                if longest is not None and delay > longest:  # a handler may ask for more
                    delay = longest
                    _log.warning(
                        "Task %s (%s) is tried again after %g s and not after %g s: the broker delays by no more",
                        envelope.id,
                        envelope.name,
                        delay,
                        verdict.delay,
                    )
                end = Retried(error, delay, seconds)
                return outcome.retried(envelope, delivery, end, started_at=run.started_at)
            reason = DeadReason(verdict.why)
        return outcome.failed(
            envelope,
            delivery,
            Failed(error, reason, seconds=seconds),
            started_at=run.started_at,
            now=self._now(),
        )

    def _cut_short(self, run: Run, stop: Stop) -> Finish | None:
        if stop is Stop.LEASE_LOST:
            return None
        if stop is Stop.HARD_LIMIT:
            error = TaskError(HARD_LIMIT[0], f"the hard time limit of {run.envelope.time_limit:g} s ended")
            return self.failure(run, error, HARD_LIMIT, None, None)
        if stop is Stop.REVOKED:
            return outcome.cancelled(
                run.envelope, run.delivery, Cancelled("revoked"), started_at=run.started_at, now=self._now()
            )
        if run.finishing:  # acked before it started: it cannot be given back
            error = TaskError("stem_core.WorkerStopped", "the worker stopped before the task ended")
            return self.failure(run, error, (error.type,), None, DeadReason.REJECTED)
        return outcome.given_back(run.delivery)

    def _without_input(self, run: Run, found: inputs.Failed | inputs.Missing) -> Finish:
        if isinstance(found, inputs.Failed):
            message = f"its input failed: task {found.member}: {found.error.type}: {found.error.message}"
            error = TaskError("stem_core.InputFailed", message)
        else:
            error = TaskError("stem_core.InputMissing", f"its input is missing: {found.what}")
        return self.failure(run, error, (error.type,), None, DeadReason.INPUT_MISSING)


def needs_preparation(run: Run) -> bool:
    """Whether something is awaited before the run starts; most have nothing."""
    envelope = run.envelope
    return bool(
        run.not_before
        or envelope.input is not None
        or envelope.limits is not None
        or not envelope.acks_late
        or envelope.expires is not None
        or run.stop is not None
    )


def _forced_reason(error: BaseException, run: Run) -> DeadReason | None:
    """Arguments that cannot be decoded fail the same way every time."""
    return DeadReason.DECODE_FAILED if isinstance(error, DecodeError) and run.started is None else None
