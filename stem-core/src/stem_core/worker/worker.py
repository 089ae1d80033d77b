"""The worker: claims messages, runs their tasks, stores their ends, and stops without losing anything."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import msgspec

from stem_core.checks import TEXT_OR_NONE, Kind, check_count, check_kind, duration, positive_duration, shown
from stem_core.clock import Clock
from stem_core.connected import Connected
from stem_core.encoding import TaskPayloadEncoderRegistry
from stem_core.errors import AdapterError, StemError
from stem_core.options import Duration, check_name
from stem_core.ports.encoder import PayloadEncoder
from stem_core.worker.engine import Engine
from stem_core.worker.resources import Resource, Resources
from stem_core.worker.settings import WorkerSettings
from stem_core.worker.signals import StopSignals
from stem_core.worker.stats import WorkerStats

if TYPE_CHECKING:
    from stem_core.producer import Stem
    from stem_core.wiring import Wiring

__all__ = ["Worker"]

_log = logging.getLogger("stem.worker")


class Worker:
    """Runs the tasks of a :class:`~stem_core.Stem`.

    ``await worker.run()`` works until SIGTERM or SIGINT, ``async with worker`` while the block runs.

    :param queues: names, or a mapping of names to weights.
    :param queue_order: ``"rotate"`` shares fairly among the queues, ``"strict"`` empties the first one first.
    :param concurrency: how many tasks at once; :param threads: how many of them in threads;
        :param processes: how many in processes of their own.
    :param lease: seconds a claim lasts; renewed each third of it for as long as a task runs.
    :param prefetch: how many more to claim than can run; None: none while runs take more than 50 ms on average,
        else as many again, or what would take 20 ms one after the other if that is more (at most 400).
    :param max_deliveries: hand-outs without an end after which a message is put aside as a crash loop.
    :param drain_timeout: seconds running tasks have to end after a stop, before they are cancelled and given back.
    :param unknown_task_grace: seconds a message of an unknown task waits for a deploy that brings it.
    :param on_startup: functions of the state dict (``ctx.state``), called in order on the worker's loop before it
        consumes; ``on_shutdown`` in order after it has stopped. In each process of tasks they are called as well, so
        they are functions that a module has at its top level.
    :param encoders: (or ``args_encoder``, ``result_encoder``) used in place of the Stem's; tasks in processes of their
        own keep the Stem's.
    :param max_tasks: stop after that many runs; :param max_memory: or above that many bytes of resident memory.
    """

    def __init__(
        self,
        stem: Stem,
        *,
        queues: Sequence[str] | Mapping[str, int] | str = ("default",),
        queue_order: Literal["rotate", "strict"] = "rotate",
        concurrency: int = 100,
        threads: int = 8,
        processes: int | None = None,
        lease: Duration = 30.0,
        prefetch: int | None = None,
        max_deliveries: int = 5,
        drain_timeout: Duration = 25.0,
        unknown_task_grace: Duration = 60.0,
        wait: Duration = 2.0,
        on_startup: Sequence[Resource] = (),
        on_shutdown: Sequence[Resource] = (),
        max_tasks: int | None = None,
        max_memory: int | None = None,
        max_tasks_per_child: int | None = None,
        encoders: TaskPayloadEncoderRegistry | None = None,
        args_encoder: str | PayloadEncoder | None = None,
        result_encoder: str | PayloadEncoder | None = None,
        clock: Clock | None = None,
        name: str | None = None,
    ) -> None:
        if not isinstance(stem, Connected):
            raise TypeError(
                f"stem={shown(stem)} must be a Stem: write Worker(Stem('sqlite:///stem.db'), ...)"
            )
        check_kind("queues", queues, Kind((Iterable,), "names of queues: write queues=['default', 'mail']"))
        check_kind("name", name, TEXT_OR_NONE)
        if processes is None:
            check_count("concurrency", concurrency)
            processes = max(1, min(os.cpu_count() or 1, concurrency))
        names = (queues,) if isinstance(queues, str) else tuple(queues)
        self.settings = WorkerSettings(
            queues=names,
            weights=tuple(queues.values()) if isinstance(queues, Mapping) else (),
            queue_order=queue_order,
            concurrency=concurrency,
            threads=threads,
            processes=processes,
            lease=positive_duration("lease", lease),
            prefetch=prefetch,
            max_deliveries=max_deliveries,
            drain_timeout=duration("drain_timeout", drain_timeout),
            unknown_task_grace=duration("unknown_task_grace", unknown_task_grace),
            wait=positive_duration("wait", wait),
            max_tasks=max_tasks,
            max_memory=max_memory,
            max_tasks_per_child=max_tasks_per_child,
            resources=Resources(on_startup, on_shutdown),
        )
        if name:
            check_name(name, "worker's name")
        self.stem = stem
        #: Who this worker is, among others on the same queues.
        self.id = name or f"{socket.gethostname()}.{os.getpid()}.{random.randrange(16**6):06x}"
        #: What ``on_startup`` functions fill and handlers see as ``ctx.state``.
        self.state: dict[str, Any] = {}
        self._clock = clock
        self._encoders = _encoders(stem, encoders, args_encoder, result_encoder)
        self._stats = WorkerStats()
        self._engine: Engine | None = None
        self._managed: asyncio.Task[None] | None = None
        self._stop_asked = asyncio.Event()
        self._ready = asyncio.Event()
        self._hurry = False
        self._paused: frozenset[str] = frozenset()

    @property
    def stats(self) -> WorkerStats:
        """The counts at this moment."""
        return msgspec.structs.replace(self._stats, **self._engine.gauges() if self._engine else {})

    @property
    def started(self) -> bool:
        """Whether it consumes: resources are made and the broker was reached."""
        return self._ready.is_set()

    def healthy(self) -> bool:
        """Whether it does what it should: consumes (or stops), and its loop turns."""
        return self._engine is not None and self._engine.healthy()

    @property
    def recycled(self) -> bool:
        """Whether it stopped because of ``max_tasks`` or ``max_memory``, to be started afresh."""
        return self._engine is not None and self._engine.recycled

    def pause(self, *queues: str) -> None:
        """Claim nothing from these queues (all without a name), until :meth:`resume`; before a start too."""
        self._set_paused(self._paused.union(queues or self.settings.queues))

    def resume(self, *queues: str) -> None:
        """Undo :meth:`pause`."""
        self._set_paused(self._paused.difference(queues or self.settings.queues))

    def stop(self, *, hurry: bool = False) -> None:
        """Stop: claim nothing more, give back what has not started, let the rest end. ``hurry`` skips the last."""
        self._hurry = self._hurry or hurry
        self._stop_asked.set()
        if self._engine is not None:
            self._engine.stop(hurry=self._hurry)

    async def run(self, *, until_empty: bool = False) -> None:
        """Work until SIGTERM, SIGINT or :meth:`stop`; with ``until_empty`` until there is nothing left to do.

        Empty means that nothing in its queues is ready or leased, and no retry of its own is due; what producers
        have scheduled for later is left. The first signal stops as :meth:`stop` does, a second one hurries.
        """
        with StopSignals(self._on_signal):
            await self._work(until_empty=until_empty)

    async def __aenter__(self) -> Self:
        self._stop_asked.clear()
        self._hurry = False
        self._managed = asyncio.get_running_loop().create_task(self._work(until_empty=False))
        ready = asyncio.ensure_future(self._ready.wait())
        await asyncio.wait((self._managed, ready), return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if self._managed.done():
            self._managed.result()  # raises what kept it from starting
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._managed is not None:
            self.stop()
            await self._managed
            self._managed = None

    async def _work(self, *, until_empty: bool) -> None:
        wiring = await self._reach_the_stores()
        if wiring is None:
            return
        try:
            used = wiring if self._encoders is None else wiring.encoding_with(self._encoders)
            await self._work_on(used, until_empty=until_empty)
        finally:
            if wiring is not self.stem.wiring:
                await wiring.close()

    async def _work_on(self, wiring: Wiring, *, until_empty: bool) -> None:
        try:
            await self.settings.resources.make(self.state)
            self._engine = Engine(
                self.stem, wiring, self.settings, self._stats, self.state, self._clock, self.id
            )
            self._engine.plan.paused = self._paused
            if self._hurry or self._stop_asked.is_set():
                self._engine.stop(hurry=self._hurry)
            await self._engine.begin()
            wiring.emit("stem_worker_started", worker_id=self.id, queues=self.settings.queues)
            self._ready.set()
            _log.info("Worker %s consumes %s", self.id, ", ".join(self.settings.queues))
            try:
                await self._engine.run(until_empty=until_empty)
            finally:
                self._ready.clear()
                wiring.emit("stem_worker_stopped", worker_id=self.id)
                _log.info("Worker %s has stopped", self.id)
        finally:
            await self.settings.resources.free(self.state)

    async def _reach_the_stores(self) -> Wiring | None:
        """An open wiring, however long its stores take to come up; None when a stop is asked for meanwhile."""
        pause, since = 0.2, time.monotonic()
        while not self._stop_asked.is_set():
            try:
                return await self.stem.wiring_here()
            except (StemError, OSError) as error:
                if not _may_pass(error):
                    raise
                delay = random.uniform(0.0, pause)
                _log.warning(
                    "The stores are out of reach for %.0f s (%s: %s); again in %.1f s",
                    time.monotonic() - since,
                    type(error).__name__,
                    error,
                    delay,
                )
                pause = min(pause * 2, 10.0)
                try:
                    async with asyncio.timeout(delay):
                        await self._stop_asked.wait()
                except TimeoutError:
                    continue
        return None

    def _on_signal(self, count: int) -> None:
        _log.info(
            "Stopping%s", " now" if count > 1 else f": running tasks have {self.settings.drain_timeout:g} s"
        )
        self.stop(hurry=count > 1)

    def _set_paused(self, queues: frozenset[str]) -> None:
        self._paused = queues
        if self._engine is not None:
            self._engine.plan.paused = queues


def _encoders(
    stem: Stem,
    encoders: TaskPayloadEncoderRegistry | None,
    args_encoder: str | PayloadEncoder | None,
    result_encoder: str | PayloadEncoder | None,
) -> TaskPayloadEncoderRegistry | None:
    """What is used in place of the Stem's encoders; None when they are.

    :raises TypeError: ``encoders`` is no registry. :raises ConfigurationError: one cannot be resolved.
    """
    if encoders is None:
        if args_encoder is None and result_encoder is None:
            return None
        encoders = TaskPayloadEncoderRegistry(
            args_encoder or stem.encoders.default_args, result_encoder or stem.encoders.default_result
        )
    elif not isinstance(encoders, TaskPayloadEncoderRegistry):
        raise TypeError(
            f"encoders={shown(encoders)} must be a TaskPayloadEncoderRegistry; an id goes to args_encoder= or "
            "result_encoder="
        )
    encoders.completed(stem.wiring.catalogue)
    return encoders


def _may_pass(error: Exception) -> bool:
    return isinstance(error, AdapterError | OSError)
