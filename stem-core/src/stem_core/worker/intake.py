"""From deliveries to runs: opened, checked, and what needs no run finished at once.

The broker's word is bounded by what is signed: id and queue must be equal, nothing starts before the signed
``not_before`` or within the sealed delay of a derived message (at most :data:`PATIENCE` seconds are waited here, for
more it is given back), nothing after ``expires``. Bytes that cannot be read or trusted are put aside without touching
any status.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

from stem_core.clock import Clock
from stem_core.envelope import Delivery, Envelope
from stem_core.errors import DecodeError, SignatureInvalid, StemError
from stem_core.names import DeadReason
from stem_core.publishing import longest_delay
from stem_core.status import TaskError, TaskStatus
from stem_core.worker import outcome
from stem_core.worker.holding import note_due
from stem_core.worker.leases import LeaseKeeper
from stem_core.worker.outcome import Cancelled, Failed, Finish
from stem_core.worker.run import Run
from stem_core.worker.settings import WorkerSettings

if TYPE_CHECKING:
    from stem_core.ports.backend import Backend
    from stem_core.ports.broker import Broker
    from stem_core.worker.handlers import Handlers

__all__ = ["PATIENCE", "Intake", "Revocations"]

_log = logging.getLogger("stem.worker")

#: Most seconds a message that came too early is waited for; the clocks of two hosts may differ a little.
PATIENCE: Final = 5.0
#: Forgeries kept; older ones are removed, the one exception to law 1.
KEPT_FORGERIES: Final = 10_000
_PURGE_EVERY: Final = 100
_RECEIVED: Final = "stem_task_received"


class Opener(Protocol):
    """What intake needs of the wiring."""

    broker: Broker
    backend: Backend | None

    def unseal(self, sealed: bytes) -> Envelope: ...
    def hooks(self, name: str) -> Sequence[Callable[..., Any]]: ...
    def emit(self, hook: str, **arguments: Any) -> object: ...


class Revocations(Protocol):
    """Who was revoked: ids that must not run (any more), with the reason."""

    async def among(self, ids: Sequence[str]) -> Mapping[str, str]: ...


class Intake:
    """Turns what the broker hands out into runs to be started."""

    def __init__(
        self,
        wiring: Opener,
        handlers: Handlers,
        settings: WorkerSettings,
        leases: LeaseKeeper,
        clock: Clock,
        finish: Callable[[Finish], None],
        revocations: Revocations | None = None,
    ) -> None:
        self._wiring = wiring
        self._handlers = handlers
        self._settings = settings
        self._leases = leases
        self._clock = clock
        self._finish = finish
        self._revocations = revocations
        self._unknown = UnknownTasks(settings.unknown_task_grace)
        self._observed = bool(wiring.hooks(_RECEIVED))
        self._forgeries = 0
        self._longest_delay = longest_delay(wiring.broker.capabilities)

    async def take(self, deliveries: Sequence[Delivery], asked_at: float) -> list[Run]:
        """The runs to start. ``asked_at`` is the local time at which their leases began, at the latest.

        :raises StemError: the backend cannot be asked; everything was given back.
        """
        runs: list[Run] = []
        try:
            for each in deliveries:
                if (run := self._opened(each, asked_at)) is not None:
                    runs.append(run)  # noqa: PERF401 - what was opened before one raises is given back
            ready = await self._checked(runs)
            now = self._clock.time()
            ready = [run for run in ready if self._may_run(run, now)]
        except BaseException:
            for run in runs:
                self._finish(outcome.given_back(run.delivery))  # changes nothing of what is finished already
            raise
        if self._observed:
            for run in ready:
                self._wiring.emit(_RECEIVED, envelope=run.envelope, attempt=run.delivery.attempt)
        return ready

    def _opened(self, delivery: Delivery, asked_at: float) -> Run | None:
        message = delivery.message
        try:
            envelope = self._wiring.unseal(message.sealed)
            if envelope.id != message.id or envelope.queue != message.queue:
                raise SignatureInvalid(
                    f"The broker calls it {message.id!r} on {message.queue!r}, its content {envelope.id!r} on "
                    f"{envelope.queue!r}."
                )
        except SignatureInvalid as error:
            self._put_aside(delivery, DeadReason.SIGNATURE_INVALID, error)
            return None
        except DecodeError as error:
            self._put_aside(delivery, DeadReason.DECODE_FAILED, error)
            return None
        except StemError:
            raise
        except Exception as error:  # noqa: BLE001 - no bytes from outside may stop the queue, whatever they trip over
            self._put_aside(delivery, DeadReason.DECODE_FAILED, error)
            return None
        lease = self._settings.lease
        run = Run(delivery, envelope, asked_at + lease, envelope.visibility_timeout or lease)
        run.handler = self._handlers.get(envelope.name)
        self._leases.hold(run)
        return run

    def _put_aside(self, delivery: Delivery, reason: DeadReason, error: Exception) -> None:
        _log.error("Message %s on %s is put aside: %s", delivery.message.id, delivery.message.queue, error)
        self._finish(outcome.unreadable(delivery, reason, str(error)))
        if reason is DeadReason.SIGNATURE_INVALID:
            self._forgeries += 1

    async def trim_forgeries(self, queues: Sequence[str]) -> None:
        """Keep only the newest forgeries; called now and then, cheap when there is nothing to do."""
        if self._forgeries < _PURGE_EVERY or not self._wiring.broker.capabilities.dead_letters:
            return
        self._forgeries = 0
        for queue in queues:
            await self._wiring.broker.dead_purge(
                queue, reason=DeadReason.SIGNATURE_INVALID, keep=KEPT_FORGERIES
            )

    async def _checked(self, runs: list[Run]) -> list[Run]:
        """Those that have not ended, were not revoked, and are still ours."""
        special = [run for run in runs if run.lease != self._settings.lease]
        asked = [run for run in runs if run.delivery.message.once or run.delivery.deliveries > 1]
        if not special and not asked and self._revocations is None:
            return runs
        for lease in {run.lease for run in special}:
            await self._leases.set_lease([run for run in special if run.lease == lease], lease)
        backend = self._wiring.backend
        over: set[str] = set()
        if asked and backend is not None:
            statuses = await backend.fetch([run.envelope.id for run in asked])
            for run, status in zip(asked, statuses, strict=True):
                if status is not None and _is_over(run, status):
                    over.add(run.receipt)
                    self._finish(outcome.recorded(run.envelope, run.delivery, status))
            early = [pair for pair in zip(asked, statuses, strict=True) if self._may_be_early(pair[0])]
            if early:
                await note_due(early, backend, self._clock.time())
        elif early_ids := [run.envelope.id for run in asked if self._may_be_early(run)]:
            _log.warning("Without a backend nobody knows when these are due, so they run now: %s", early_ids)
        if self._revocations is not None:
            revoked = await self._revocations.among([run.envelope.id for run in runs])
            for run in runs:
                if run.envelope.id in revoked and run.receipt not in over:
                    over.add(run.receipt)
                    self._cancel(run, revoked[run.envelope.id])
        return [run for run in runs if run.receipt not in over and self._leases.holds(run.receipt)]

    def _may_be_early(self, run: Run) -> bool:
        """Whether it is a derived message that the broker cannot have held back for as long as it asks."""
        return run.envelope.delay > self._longest_delay and not run.delivery.attempt

    def _may_run(self, run: Run, now: float) -> bool:
        envelope, delivery = run.envelope, run.delivery
        if delivery.deliveries > self._settings.max_deliveries:
            handed = delivery.deliveries - 1
            detail = f"handed out {handed} times, and the worker that had it died or lost its lease each time"
            self._fail(run, DeadReason.CRASH_LOOP, "stem_core.CrashLoop", detail)
            return False
        if envelope.expires is not None and envelope.expires.timestamp() <= now:
            self._cancel(run, "expired")
            return False
        if run.handler is None:
            self._not_known(run)
            return False
        due = run.due if envelope.not_before is None else max(run.due, envelope.not_before.timestamp())
        if due:
            early = due - now
            if early > PATIENCE:
                longest = self._wiring.broker.capabilities.max_delay
                self._finish(outcome.given_back(delivery, early if longest is None else min(early, longest)))
                return False
            run.not_before = max(0.0, early)
        return True

    def _not_known(self, run: Run) -> None:
        name = run.envelope.name
        delay = self._unknown.patience(name, self._clock.time())
        if delay is not None:
            _log.warning("No task %r here yet; its message is given back for %.1f s", name, delay)
            self._finish(outcome.given_back(run.delivery, delay))
            return
        known = ", ".join(sorted(self._handlers.names())[:20]) or "none"
        self._fail(
            run, DeadReason.UNKNOWN_TASK, "stem_core.UnknownTask", f"no task {name!r} here; known: {known}"
        )

    def _fail(self, run: Run, reason: DeadReason, kind: str, detail: str) -> None:
        end = Failed(TaskError(kind, detail), reason, detail)
        self._finish(outcome.failed(run.envelope, run.delivery, end, started_at=None, now=self._now()))

    def _cancel(self, run: Run, reason: str) -> None:
        self._finish(
            outcome.cancelled(run.envelope, run.delivery, Cancelled(reason), started_at=None, now=self._now())
        )

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.time(), UTC)


class UnknownTasks:
    """How long tasks of an unknown name are waited for: a rolling deploy may bring them."""

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._first_seen: dict[str, float] = {}

    def patience(self, name: str, now: float) -> float | None:
        """Seconds to give a message back for; None when the grace from its first sight is over."""
        waited = now - self._first_seen.setdefault(name, now)
        if waited >= self._grace:
            return None
        # A quarter of what was waited so far: a handful of looks, whatever the grace.
        return min(max(waited / 4, 0.5), 10.0, self._grace - waited)


def _is_over(run: Run, status: TaskStatus) -> bool:
    return status.terminal and status.generation >= run.delivery.generation
