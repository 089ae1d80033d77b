"""The loop that claims work: asks for what there is room for, hands it on, and survives the broker.

An error tears the loop's state down and starts it again after a pause with full jitter (drawn from nothing to a
bound that doubles), so that a fleet does not come back in step. The watchdog is for the case no error tells:
a loop that should be receiving and has not come back from a receive within three waits is not healthy.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence

from stem_core.envelope import Delivery
from stem_core.errors import StemError
from stem_core.ports.broker import Broker
from stem_core.worker.intake import Intake
from stem_core.worker.pool import Pool
from stem_core.worker.queues import QueuePlan
from stem_core.worker.settings import WorkerSettings
from stem_core.worker.stats import WorkerStats

__all__ = ["Consumer"]

_log = logging.getLogger("stem.worker")
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 10.0
#: Seconds between looks at whether a queue is still paused.
_WHILE_PAUSED = 0.2
#: Seconds a receive may go on after a stop: it may have claimed already, and what it has is given back.
_LAST_RECEIVE = 0.25
#: So few runs start before the next receive is asked for; of more, the store finds the next ones meanwhile.
_FEW = 10


class Consumer:
    """One consumer of one connection."""

    def __init__(
        self,
        broker: Broker,
        intake: Intake,
        pool: Pool,
        plan: QueuePlan,
        settings: WorkerSettings,
        stats: WorkerStats,
        give_back: Callable[[Sequence[Delivery]], None],
        on_empty: Callable[[], None],
    ) -> None:
        self._broker = broker
        self._intake = intake
        self._pool = pool
        self._plan = plan
        self._settings = settings
        self._stats = stats
        self._give_back = give_back
        self._on_empty = on_empty
        self._stopping = asyncio.Event()
        self._asking: asyncio.Task[None] | None = None
        """The consumer's own task while it is in a receive."""
        self._cut = False
        """Whether a receive was ended after a stop."""
        self._receiving_since: float | None = None
        self._failing_since: float | None = None
        #: How long one receive waits for work; 0 while the queues are being emptied.
        self.wait = settings.wait

    def stop(self) -> None:
        """Claim nothing more."""
        self._stopping.set()
        self._pool.kick()
        if self._asking is not None:
            asyncio.get_running_loop().call_later(_LAST_RECEIVE, self._cut_short)

    def _cut_short(self) -> None:
        if self._asking is not None and not self._cut:
            self._cut = True
            self._asking.cancel()

    def healthy(self) -> bool:
        """Whether work would be claimed if there were some."""
        limit = 3 * max(self._settings.wait, 1.0)
        now = time.monotonic()
        for since in (self._receiving_since, self._failing_since):
            if since is not None and now - since > limit:
                return False
        return True

    async def run(self) -> None:
        """Consume until stopped."""
        pause = _FIRST_PAUSE
        while not self._stopping.is_set():
            try:
                await self._turn()
                if self._failing_since is not None:
                    _log.info("Receiving works again")
                pause, self._failing_since = _FIRST_PAUSE, None
            except (StemError, OSError, TimeoutError) as error:
                # Expected of a network; the driver's error is in the text.
                await self._after(error, pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
            except Exception as error:  # noqa: BLE001 - a bug in an adapter must not end consumption
                _log.exception("Receiving failed in a way no adapter should")
                await self._after(error, pause)
                pause = min(pause * 2, _LONGEST_PAUSE)

    async def _turn(self) -> None:
        room = await self._pool.wait_for_room(2 * self._settings.batch)
        if self._stopping.is_set():
            return
        asked_at = time.monotonic()
        deliveries = await self._receive(room)
        if self._stopping.is_set():
            self._give_back(deliveries)
            return
        if not deliveries:
            self._on_empty()
            return
        self._stats.received += len(deliveries)
        runs = await self._intake.take(deliveries, asked_at)
        if runs:
            await self._pool.start(runs)
        if len(runs) <= _FEW:
            await asyncio.sleep(0)  # they start
        await self._intake.trim_forgeries(self._settings.queues)

    async def _receive(self, room: int) -> Sequence[Delivery]:
        deliveries: Sequence[Delivery] = ()
        for queues, wait in self._plan.turns(self.wait):
            self._receiving_since = time.monotonic()
            try:
                deliveries = await self._ask(queues, room, wait)
            finally:
                self._receiving_since = None
            if deliveries or self._stopping.is_set():
                return deliveries
        if not self._plan.any_active:
            await self._sleep(_WHILE_PAUSED)
        return deliveries

    async def _ask(self, queues: Sequence[str], room: int, wait: float) -> Sequence[Delivery]:
        """What the broker hands out; nothing where a stop cut it short.

        Asked by the consumer's own task: one for each receive would put two turns of the loop between every claim and
        its runs.
        """
        task = asyncio.current_task()
        assert task is not None  # nothing else can await
        self._asking, before = task, task.cancelling()
        try:
            return await self._broker.receive(queues, limit=room, lease=self._settings.lease, wait=wait)
        except asyncio.CancelledError:
            if not self._cut or task.cancelling() > before + 1:
                raise  # it was somebody else, too
            return ()
        finally:
            self._asking = None
            if self._cut:
                task.uncancel()

    async def _after(self, error: Exception, pause: float) -> None:
        self._stats.receive_errors += 1
        if self._failing_since is None:
            self._failing_since = time.monotonic()
        delay = random.uniform(0.0, pause)
        _log.warning("Receiving failed (%s: %s); again in %.2f s", type(error).__name__, error, delay)
        await self._sleep(delay)

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return
