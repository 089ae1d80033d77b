"""Runs handlers in processes of their own, which can be killed and can die without taking the worker along.

A child is spawned (never forked), runs one task at a time, and is used again. It leads its own session, so that a
terminal's Ctrl-C reaches the worker alone. Leases, limits and connections stay with the worker. A crash is
charged to the message the child was running, and to no other.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from stem_core.errors import PublishError
from stem_core.names import DeadReason
from stem_core.publishing import message_of, queued_of
from stem_core.retry import RetryRequest
from stem_core.sending import Publish
from stem_core.status import Progress, TaskError
from stem_core.worker import inputs
from stem_core.worker.controls import SharedControls, WorkerControls
from stem_core.worker.frames import Answer, Ask, Enqueue, Hello, Job, Raised, Returned, Started, pack, read
from stem_core.worker.logs import configured
from stem_core.worker.memory import resident
from stem_core.worker.payloads import keeps_result
from stem_core.worker.resources import Name
from stem_core.worker.run import Run, Stop
from stem_core.worker.settings import WorkerSettings

if TYPE_CHECKING:
    from stem_core.wiring import Wiring

__all__ = ["ChildDied", "ChildNotReady", "ProcessExecutor", "RemoteError"]

_log = logging.getLogger("stem.worker")
#: Seconds a child has to end by itself, its on_shutdown functions included.
_LAST_WAIT = 5.0


class ChildDied(Exception):
    """The child ended in the middle of a run: killed, out of memory, or by ``os._exit``."""

    def __init__(self, status: int | None) -> None:
        super().__init__(status)
        self.status = status

    def __str__(self) -> str:
        if self.status is not None and self.status < 0:
            return f"the child process was killed by signal {-self.status}"
        return f"the child process ended with status {self.status}"


class ChildNotReady(Exception):
    """A new child could not run its ``on_startup`` functions: no task is at fault."""

    def __init__(self, error: TaskError) -> None:
        super().__init__(f"{error.type}: {error.message}")
        self.error = error


class RemoteError(Exception):
    """What a handler raised in a child, as text."""

    def __init__(
        self,
        error: TaskError,
        names: tuple[str, ...],
        request: RetryRequest | None,
        reason: DeadReason | None,
    ) -> None:
        super().__init__(error.message)
        self.error = error
        self.names = names
        self.request = request
        self.reason = reason


class Child:
    """One child process."""

    def __init__(
        self, process: subprocess.Popen[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.process = process
        self.reader = reader
        self.writer = writer
        self.runs = 0

    @classmethod
    async def spawn(cls, hello: Hello) -> Child:
        """A new child, ready for jobs as soon as it has started."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(  # noqa: ASYNC220, S603 - quick; our own interpreter and module
                [sys.executable, "-m", "stem_core.worker.child", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        ours.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=ours)
        child = cls(process, reader, writer)
        child.writer.write(pack(hello))
        return child

    def kill(self) -> None:
        """End it at once, whatever it does."""
        self.process.kill()

    async def close(self) -> int | None:
        """Let it end (it does when its socket is closed), make sure of it, and answer its status."""
        self.writer.close()
        deadline = time.monotonic() + _LAST_WAIT
        while self.process.poll() is None and time.monotonic() < deadline:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.005)
        if self.process.poll() is None:
            self.process.kill()
            await asyncio.to_thread(self.process.wait)
        return self.process.returncode


class ProcessExecutor:
    """The children of a worker, at most ``settings.processes``, spawned as they are needed."""

    def __init__(self, wiring: Wiring, settings: WorkerSettings, shared: SharedControls) -> None:
        self._wiring = wiring
        self._settings = settings
        self._shared = shared
        self._slots = asyncio.Semaphore(settings.processes)
        self._idle: deque[Child] = deque()
        self._all: set[Child] = set()
        self._closing: set[asyncio.Task[int | None]] = set()
        self._names: tuple[list[Name], list[Name]] | None = None

    async def run(self, run: Run, gathered: inputs.Gathered) -> tuple[bytes | None, str | None]:
        """The encoded result of the handler, and its encoder's id.

        :raises RemoteError: the handler raised.
        :raises ChildDied: the child ended in the middle of it, also when it was killed for a limit.
        :raises ChildNotReady: it never began.
        """
        async with self._slots:
            child = self._idle.pop() if self._idle else await self._spawn()
            run.interrupt = lambda _: child.kill()
            try:
                child.writer.write(pack(self._job(run, gathered)))
                reply = await self._talk(child, run)
            except EOFError:
                self._all.discard(child)
                raise ChildDied(await child.close()) from None
            except BaseException:
                self._all.discard(child)
                child.kill()
                await child.close()
                raise
            finally:
                run.interrupt = None
            if isinstance(reply, Raised) and reply.stage == "startup":
                self._retire(child)
                _log.error("A child process is not ready:\n%s", reply.error.traceback or reply.error.message)
                raise ChildNotReady(reply.error)
            self._put_back(child)
        if isinstance(reply, Returned):
            return reply.payload, reply.encoder
        reasons = {"decode": DeadReason.DECODE_FAILED, "encode": DeadReason.REJECTED}
        raise RemoteError(reply.error, reply.names, reply.request, reasons.get(reply.stage))

    async def close(self) -> None:
        """End every child."""
        for child in self._all:
            if child not in self._idle:
                child.kill()
        await asyncio.gather(*self._closing, *(child.close() for child in self._all))
        self._all.clear()
        self._idle.clear()

    async def _talk(self, child: Child, run: Run) -> Returned | Raised:
        controls = WorkerControls(run, self._shared)
        hard, timer = run.envelope.time_limit, None
        try:
            while True:
                frame = await read(child.reader)
                if isinstance(frame, Started):
                    run.started = time.monotonic()
                    self._wiring.emit(
                        "stem_task_started", envelope=run.envelope, attempt=run.delivery.attempt
                    )
                    if hard is not None:
                        loop = asyncio.get_running_loop()
                        timer = loop.call_later(hard, run.cut, Stop.HARD_LIMIT)
                elif isinstance(frame, Ask | Enqueue):
                    child.writer.write(pack(await self._answer(frame, controls)))
                elif isinstance(frame, Returned | Raised):
                    return frame
        finally:
            if timer is not None:
                timer.cancel()

    async def _answer(self, ask: Ask | Enqueue, controls: WorkerControls) -> Answer:
        try:
            if isinstance(ask, Enqueue):
                return Answer(await self._publish(ask))
            if ask.what == "heartbeat":
                await controls.heartbeat()
            elif ask.what == "extend_lease":
                await controls.extend_lease(ask.value)
            else:
                await controls.progress(Progress(*ask.value))
        except PublishError as error:
            return Answer(error=("PublishError", str(error)), outcome=error.outcome)
        except Exception as error:  # noqa: BLE001 - the child's to handle
            return Answer(error=(type(error).__name__, str(error)))
        return Answer()

    async def _publish(self, asked: Enqueue) -> str | None:
        """Publish what the child sealed, as what a task on the loop enqueues."""
        wiring = self._wiring
        envelope = wiring.unseal(asked.sealed)
        message = message_of(envelope, asked.sealed, wiring.broker.capabilities, once=True)
        queued = None if wiring.backend is None else queued_of(envelope)
        publish = Publish(envelope=envelope, message=message, queued=queued, retry=asked.retry)
        duplicate_of: str | None = await self._shared.stem.publish_drafted(publish, asked.locked_for)
        return duplicate_of

    def _job(self, run: Run, gathered: inputs.Gathered) -> Job:
        envelope, handler = run.envelope, run.handler
        assert handler is not None
        function = handler.plain
        return Job(
            module=function.__module__,
            qualname=function.__qualname__,
            envelope=msgspec.structs.replace(envelope, on_success=(), on_failure=(), on_end=()),
            gathered=gathered,
            result_encoder=envelope.result_encoder or handler.result_encoder,
            keep_result=self._wiring.backend is not None and keeps_result(envelope),
            attempt=run.delivery.attempt,
            generation=run.delivery.generation,
        )

    async def _spawn(self) -> Child:
        main: Any = sys.modules.get("__main__")
        if self._names is None:
            self._names = self._settings.resources.names()
        on_startup, on_shutdown = self._names
        hello = Hello(
            path=list(sys.path),
            main_name=getattr(getattr(main, "__spec__", None), "name", None),
            main_path=getattr(main, "__file__", None),
            namespace=self._wiring.namespace,
            limit=self._wiring.max_payload,
            on_startup=on_startup,
            on_shutdown=on_shutdown,
            logs=configured(),
        )
        child = await Child.spawn(hello)
        self._all.add(child)
        return child

    def _put_back(self, child: Child) -> None:
        child.runs += 1
        most_runs, most_memory = self._settings.max_tasks_per_child, self._settings.max_memory
        worn = most_runs is not None and child.runs >= most_runs
        if worn or (most_memory is not None and resident(child.process.pid) > most_memory):
            self._retire(child)
        else:
            self._idle.append(child)

    def _retire(self, child: Child) -> None:
        """Let it end; no task waits for that."""
        self._all.discard(child)
        closing = asyncio.get_running_loop().create_task(child.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
