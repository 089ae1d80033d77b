"""The parts of a worker, put together for one run on one loop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from stem_core.clock import Clock
from stem_core.envelope import DeadLetter, Delivery, Release, Retry
from stem_core.errors import StemError
from stem_core.names import DeadReason
from stem_core.shared.revocation import REVOKED
from stem_core.worker import outcome
from stem_core.worker.admission import Admission
from stem_core.worker.announcing import Announcer
from stem_core.worker.builtin_tasks import built_in_tasks
from stem_core.worker.consumer import Consumer
from stem_core.worker.controls import SharedControls, WorkerControls
from stem_core.worker.endings import log_end
from stem_core.worker.failures import error_of
from stem_core.worker.finishing import Finisher
from stem_core.worker.handlers import Handlers
from stem_core.worker.intake import Intake
from stem_core.worker.leases import LeaseKeeper
from stem_core.worker.locks import LockReleaser
from stem_core.worker.memory import resident
from stem_core.worker.outcome import Failed, Finish, Kind, Succeeded
from stem_core.worker.pool import Pool
from stem_core.worker.processes import ProcessExecutor
from stem_core.worker.queues import QueuePlan
from stem_core.worker.remote import Remote
from stem_core.worker.run import Run, Stop
from stem_core.worker.settings import WorkerSettings
from stem_core.worker.stats import WorkerStats
from stem_core.worker.story import Story
from stem_core.worker.threads import ThreadExecutor
from stem_core.worker.watchdog import LoopWatchdog

if TYPE_CHECKING:
    from stem_core.producer import Stem
    from stem_core.wiring import Wiring

__all__ = ["Engine"]

_log = logging.getLogger("stem.worker")
#: Seconds cancelled handlers have to clean up, after the drain.
_CLEANUP = 1.0
#: After these nothing more happens in this generation.
_FINAL = frozenset({Kind.SUCCEEDED, Kind.FAILED, Kind.CANCELLED, Kind.RECORDED})


class Engine:
    """Made on the loop it runs on, runs once."""

    def __init__(
        self,
        stem: Stem,
        wiring: Wiring,
        settings: WorkerSettings,
        stats: WorkerStats,
        state: dict[str, Any],
        clock: Clock | None,
        name: str,
    ) -> None:
        self._wiring = wiring
        self._settings = settings
        self._stats = stats
        self._clock = clock or wiring.clock
        self._stop_asked = asyncio.Event()
        self._hurry = asyncio.Event()
        #: Own retries and releases with a delay: id -> local time they are due. Kept while emptying queues.
        self._own_delays: dict[str, float] | None = None
        self._runs = 0
        #: Whether it stopped by itself, to be started afresh.
        self.recycled = False
        self._drain_timeout: float | None = settings.drain_timeout
        self.plan = QueuePlan(settings.queues, settings.queue_order, settings.weights)
        self._leases = LeaseKeeper(wiring.broker, settings.lease, self._lost)
        self._announcer = Announcer(wiring.backend)
        self._threads = ThreadExecutor(settings.threads)
        handlers = Handlers(stem.tasks, built_in_tasks(stem, wiring), wiring.encoders)
        shared = SharedControls(stem, wiring, self._leases, asyncio.get_running_loop())
        self._processes = ProcessExecutor(wiring, settings, shared)
        self._finisher = Finisher(
            wiring.broker,
            wiring.backend,
            wiring.committer,
            still_wanted=self._still_wanted,
            on_stored=self._stored,
            on_dropped=self._dropped,
            on_refused=self._refused,
            on_error=self._finish_failed,
            expects_more=lambda: self._pool.running > 0,
            linger=settings.linger,
            batch=settings.batch,
        )
        self._admission = Admission(wiring.backend, name, settings.lease)
        self._locks = LockReleaser(wiring.backend)
        self._remote = Remote(wiring, settings, name, self)
        self._story = Story(
            wiring,
            threads=self._threads,
            processes=self._processes,
            controls=lambda run: WorkerControls(run, shared),
            state=state,
            max_deliveries=settings.max_deliveries,
            clock=self._clock,
            announce=self._announcer.begun,
            crashed=self._child_crashed,
            admission=self._admission,
        )
        self._pool = Pool(
            self._story,
            self._finisher,
            concurrency=settings.concurrency,
            prefetch=settings.prefetch,
            ended=self._ended,
        )
        self._intake = Intake(
            wiring,
            handlers,
            settings,
            self._leases,
            self._clock,
            self._finisher.add,
            self._remote.revoked,
        )
        self._consumer = Consumer(
            wiring.broker,
            self._intake,
            self._pool,
            self.plan,
            settings,
            stats,
            give_back=self._give_back,
            on_empty=self._kick,
        )
        self._watchdog = LoopWatchdog(settings.longest_block, self._blocked)
        self._looked_empty = asyncio.Event()
        self._watched = frozenset(kind for kind in Kind if wiring.hooks(kind.value))

    def gauges(self) -> dict[str, int]:
        """What is going on right now."""
        return {"running": self._pool.running, "held": len(self._leases)}

    def healthy(self) -> bool:
        """See ``Worker.healthy``."""
        return (self._stop_asked.is_set() or self._consumer.healthy()) and self._watchdog.late == 0.0

    def stop(self, *, hurry: bool) -> None:
        """See ``Worker.stop``."""
        self._stop_asked.set()
        if hurry:
            self._hurry.set()

    async def begin(self) -> None:
        """Learn what is paused and revoked, and say that this worker lives; before the first claim."""
        await self._remote.begin()

    async def run(self, *, until_empty: bool) -> None:
        """Work until stopped, then drain."""
        if until_empty:
            self._own_delays = {}
            self._consumer.wait = min(self._settings.wait, 0.02)
        self._watchdog.start()
        parts = (self._leases, self._finisher, self._announcer, self._admission, self._remote, self._locks)
        helpers = [_start(part.run()) for part in parts]
        if until_empty:
            helpers.append(_start(self._stop_when_empty()))
        consuming = _start(self._consumer.run())
        try:
            await self._until_stopped(consuming, helpers)
            await self._drain(consuming)
        finally:
            self._watchdog.stop()
            self._threads.close()
            for each in (consuming, *helpers):
                each.cancel()
            await asyncio.gather(consuming, *helpers, return_exceptions=True)
            await self._processes.close()

    async def _until_stopped(
        self, consuming: asyncio.Task[None], helpers: Sequence[asyncio.Task[None]]
    ) -> None:
        stopping = asyncio.ensure_future(self._stop_asked.wait())
        try:
            await asyncio.wait((stopping, consuming, *helpers), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        for each in (consuming, *helpers):
            if each.done() and not each.cancelled() and (error := each.exception()) is not None:
                raise error

    async def _drain(self, consuming: asyncio.Task[None]) -> None:
        self._stop_asked.set()
        self._consumer.stop()
        self._pool.give_back_waiting()
        await self._all_over(consuming, self._drain_timeout)
        if not self._pool.empty:
            _log.warning(
                "%d tasks did not end in time: they are cancelled and given back", self._pool.running
            )
            self._pool.cut_all(Stop.SHUTDOWN)
            self._hurry.clear()
            await self._all_over(consuming, _CLEANUP)
        for run in list(self._leases.held):  # handlers that nothing can stop
            if not run.finishing:
                self._finisher.add(outcome.given_back(run.delivery))
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLEANUP):
                await self._finisher.drained()
                await self._locks.drain()

    async def _all_over(self, consuming: asyncio.Task[None], most: float | None) -> None:
        """Wait until nothing runs and everything is stored, or it is to hurry.

        For ``most`` seconds; None is as long as it takes.
        """

        async def over() -> None:
            await asyncio.wait((consuming,))
            await self._pool.drained()
            await self._finisher.drained()

        done, hurry = _start(over()), asyncio.ensure_future(self._hurry.wait())
        try:
            await asyncio.wait((done, hurry), timeout=most, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in (done, hurry):
                each.cancel()

    # What commands do

    def running(self) -> list[dict[str, Any]]:
        """The tasks in a handler now, as plain data."""
        now = time.monotonic()
        return [
            {
                "id": run.envelope.id,
                "name": run.envelope.name,
                "queue": run.envelope.queue,
                "attempt": run.delivery.attempt,
                "seconds": now - run.started,
            }
            for run in list(self._leases.held)
            if run.started is not None and not run.ended
        ]

    def counts(self) -> dict[str, Any]:
        """Every count, as plain data."""
        return {**msgspec.structs.asdict(self._stats), **self.gauges()}

    def set_paused(self, queues: frozenset[str]) -> None:
        """Claim nothing from these, on this worker as on all others."""
        self.plan.paused_for_all = queues

    def cut_revoked(self, revoked: Mapping[str, bool]) -> frozenset[str]:
        """Stop what is revoked: what has not begun in any case, what runs when that was asked for (``terminate``).

        Answers which of them are held here.
        """
        held = [run for run in list(self._leases.held) if run.envelope.id in revoked] if revoked else []
        for run in held:
            if (revoked[run.envelope.id] or not run.begun) and not run.finishing:
                run.cut(Stop.REVOKED)
        return frozenset(run.envelope.id for run in held)

    def shut_down(self, mode: str) -> None:
        """``warm`` drains for as long as it takes, ``soft`` for the drain timeout, ``hard`` not at all."""
        if mode == "warm":
            self._drain_timeout = None
        self.stop(hurry=mode == "hard")

    # What the parts tell each other

    def _ended(self, run: Run, finish: Finish | None) -> None:
        self._runs += 1
        if finish is None:
            if not run.finishing:
                self._leases.release(run.receipt)
            return
        if run.finishing:  # acked before it started
            finish = outcome.acked(finish)
        run.finishing = True
        self._finisher.add(finish)
        if self._settings.max_tasks is not None and self._runs >= self._settings.max_tasks:
            self._recycle(f"{self._runs} tasks")
        elif (
            self._settings.max_memory is not None
            and self._runs % 50 == 0
            and resident() > self._settings.max_memory
        ):
            self._recycle(f"{resident()} bytes of memory")

    def _recycle(self, why: str) -> None:
        if not self._stop_asked.is_set():
            _log.info("Stopping after %s", why)
            self.recycled = True
            self._consumer.stop()  # now, and not at the next turn of the loop
            self._stop_asked.set()

    def _stored(self, finishes: Sequence[Finish]) -> None:
        for finish in finishes:
            run = self._leases.release(finish.delivery.receipt)
            if self._own_delays is not None:
                self._note_delay(finish, run, self._own_delays)
            self._follow(finish)
        self._pool.kick()  # it may wait for fewer unstored ones

    def _note_delay(self, finish: Finish, run: Run | None, own: dict[str, float]) -> None:
        action = finish.settlement.action if finish.settlement is not None else None
        if isinstance(action, Retry) or (isinstance(action, Release) and not self._is_scheduled(run)):
            own[finish.delivery.message.id] = time.monotonic() + action.delay
        else:
            own.pop(finish.delivery.message.id, None)

    def _is_scheduled(self, run: Run | None) -> bool:
        """Whether it was given back because it is for later, as its producer said: the broker cannot delay it."""
        if run is None:
            return False
        not_before = run.envelope.not_before
        return max(run.due, 0.0 if not_before is None else not_before.timestamp()) > self._clock.time()

    def _follow(self, finish: Finish) -> None:
        """What follows from an end once it is stored."""
        delivery, stats, kind = finish.delivery, self._stats, finish.kind
        action = finish.settlement.action if finish.settlement is not None else None
        if kind is Kind.SUCCEEDED:
            stats.succeeded += 1
            stats.seconds += finish.end.seconds  # type: ignore[union-attr,operator]
        else:
            self._count(kind)
        if finish.envelope is not None and finish.envelope.unique is not None and kind in _FINAL:
            self._locks.add(finish.envelope)
        if kind is Kind.CANCELLED and finish.update is not None and finish.update.reason == REVOKED:
            self._remote.acted_on(finish.update.id)
        log_end(finish)
        if kind in self._watched:
            self._wiring.emit(kind.value, **finish.hook_arguments())
        if isinstance(action, DeadLetter):
            self._put_aside(delivery, str(action.reason))

    def _count(self, kind: Kind) -> None:
        stats = self._stats
        if kind is Kind.FAILED:
            stats.failed += 1
        elif kind is Kind.RETRIED:
            stats.retried += 1
        elif kind is Kind.CANCELLED:
            stats.cancelled += 1
        elif kind is Kind.GIVEN_BACK:
            stats.given_back += 1
        elif kind is Kind.RECORDED:
            stats.already_done += 1

    def _put_aside(self, delivery: Delivery, reason: str) -> None:
        self._stats.dead_lettered += 1
        if reason == DeadReason.SIGNATURE_INVALID:
            self._stats.signature_invalid += 1
        message = delivery.message
        self._wiring.emit("stem_task_dead_lettered", id=message.id, queue=message.queue, reason=reason)

    def _dropped(self, finish: Finish) -> None:
        self._pool.kick()
        if self._leases.holds(finish.delivery.receipt):
            self._leases.release(finish.delivery.receipt)
            if finish.settlement is not None:
                self._stats.leases_lost += 1

    def _lost(self, run: Run) -> None:
        self._stats.leases_lost += 1

    def _still_wanted(self, finish: Finish) -> bool:
        return finish.settlement is None or self._leases.holds(finish.delivery.receipt)

    def _refused(self, finish: Finish, error: StemError) -> Finish:
        if finish.envelope is None:
            raise AssertionError("only a result can be too large, and it has an envelope")
        seconds = finish.end.seconds if isinstance(finish.end, Succeeded) else None
        end = Failed(error_of(error), DeadReason.REJECTED, seconds=seconds)
        now = datetime.fromtimestamp(self._clock.time(), UTC)
        started_at = finish.update.started_at if finish.update is not None else None
        return outcome.failed(finish.envelope, finish.delivery, end, started_at=started_at, now=now)

    def _finish_failed(self) -> None:
        self._stats.finish_errors += 1

    def _child_crashed(self) -> None:
        self._stats.crashed_children += 1

    def _blocked(self) -> None:
        self._stats.blocked_loop += 1

    def _give_back(self, deliveries: Sequence[Delivery]) -> None:
        for each in deliveries:
            self._finisher.add(outcome.given_back(each))

    def _kick(self) -> None:
        self._looked_empty.set()

    async def _stop_when_empty(self) -> None:
        while not self._stop_asked.is_set():
            await self._looked_empty.wait()
            self._looked_empty.clear()
            if self._pool.empty and self._finisher.idle and await self._nothing_left():
                self._stop_asked.set()

    async def _nothing_left(self) -> bool:
        now = time.monotonic()
        own = self._own_delays or {}
        for id, due in list(own.items()):
            if due < now - 1.0:  # it has come and gone, or another worker has it
                del own[id]
        if own:
            return False
        try:
            stats = [await self._wiring.broker.stats(queue) for queue in self._settings.queues]
        except (StemError, OSError):
            return False
        return not any(each.ready or each.leased for each in stats)


def _start(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    return asyncio.get_running_loop().create_task(work)
