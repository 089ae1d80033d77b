"""The main program of a child process: imports handlers and runs them, one at a time.

Started as ``python -m stem_core.worker.child <file descriptor of its socket>``. It holds no connection to the stores
and no lease: those are the worker's. What ``on_startup`` functions make is its own: made before the first job, freed
after the last. When the worker dies, the child does too.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from contextvars import copy_context
from types import ModuleType
from typing import Any, Final, NamedTuple

from stem_core import scripts
from stem_core.arguments import Parameters
from stem_core.context import RetryTask, TaskContext, enter_task
from stem_core.encoding import TaskPayloadEncoderRegistry
from stem_core.errors import LeaseLost, PublishError, SoftTimeLimitExceeded, StemError
from stem_core.handles import TaskHandle
from stem_core.options import UNSET
from stem_core.plugins import discover
from stem_core.retry import class_names
from stem_core.signature import Signature
from stem_core.status import Progress
from stem_core.tasks import Task
from stem_core.worker import inputs
from stem_core.worker.failures import error_of
from stem_core.worker.frames import Answer, Ask, Enqueue, Hello, Job, Raised, Returned, Started, receive, send
from stem_core.worker.limits import Interruptible, soft_limit_error
from stem_core.worker.logs import configure
from stem_core.worker.payloads import decode_arguments, encode_result
from stem_core.worker.resources import Resources
from stem_core.worker.scopes import entered
from stem_core.worker.turning import TurningLoop
from stem_core.worker.unshared import stores_here

_PR_SET_PDEATHSIG: Final = 1
_SCOPE: Final = "stem_task_scope"


class Found(NamedTuple):
    """A handler, imported."""

    function: Callable[..., Any]
    parameters: Parameters
    encoders: TaskPayloadEncoderRegistry
    scopes: tuple[Callable[..., Any], ...]
    stem: Any


def main() -> None:
    """Work until the worker closes the socket."""
    _die_with_the_worker()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the worker decides when to stop
    connection = socket.socket(fileno=int(sys.argv[1]))
    try:
        hello: Hello = receive(connection)
        sys.path[:] = hello.path
        if hello.logs is not None:  # before the application is imported, as in the worker: it may want others
            configure(*hello.logs)
        child = Child(connection, hello)
        try:
            while True:
                child.work(receive(connection))
        finally:
            child.end()
    except (EOFError, ConnectionError):
        return


class Child:
    """Runs jobs."""

    def __init__(self, connection: socket.socket, hello: Hello) -> None:
        self._connection = connection
        self._hello = hello
        self._found: dict[tuple[str, str], Found] = {}
        self._main: ModuleType | None = None
        self._pointed = ExitStack()
        self._loop = TurningLoop()
        self._resources: Resources | None = None
        self._state: dict[str, Any] = {}

    def work(self, job: Job) -> None:
        """Run one job to its end and say what came of it."""
        stage: Any = "startup"
        try:
            self._begin()
            stage = "decode"
            found = self._find(job.module, job.qualname)
            args, kwargs = decode_arguments(found.encoders, job.envelope, self._hello.namespace)
            first = inputs.decode(job.gathered, found.encoders, self._hello.namespace)
            args, kwargs = found.parameters.convert(first + args, kwargs)
            context = self._context(job, ChildControls(self._connection, found.stem))
            if found.parameters.wants_context:
                args.insert(0, context)
            stage = "run"
            soft = job.envelope.soft_time_limit
            if found.scopes or asyncio.iscoroutinefunction(found.function):
                value = self._loop.run(self._on_the_loop(found, context, args, kwargs, soft))
            else:
                value = copy_context().run(self._here, found, context, args, kwargs, soft)
            stage = "encode"
            reply: Returned | Raised = self._returned(job, found, value)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is this job's end and not the child's
            request = error.request if isinstance(error, RetryTask) else None
            reply = Raised(error_of(error), class_names(error), request, stage)
        send(self._connection, reply)

    def end(self) -> None:
        """Free what was made."""
        if self._resources is not None:
            self._loop.run(self._resources.free(self._state))

    def _begin(self) -> None:
        if self._resources is not None:
            return
        hello = self._hello
        self._resources = Resources(
            [self._named(*each) for each in hello.on_startup],
            [self._named(*each) for each in hello.on_shutdown],
        )
        self._loop.run(self._resources.make(self._state))

    def _here(
        self, found: Found, context: TaskContext, args: list[Any], kwargs: dict[str, Any], soft: float | None
    ) -> Any:
        enter_task(context)
        send(self._connection, Started())
        return _called(found.function, args, kwargs, soft)

    async def _on_the_loop(
        self, found: Found, context: TaskContext, args: list[Any], kwargs: dict[str, Any], soft: float | None
    ) -> Any:
        """The handler in its scopes."""
        enter_task(context)
        async with entered(found.scopes, context):
            send(self._connection, Started())
            if asyncio.iscoroutinefunction(found.function):
                return await _awaited(found.function, args, kwargs, soft)
            return await self._loop.here(lambda: _called(found.function, args, kwargs, soft))

    def _returned(self, job: Job, found: Found, value: Any) -> Returned:
        if not job.keep_result:
            return Returned(None, None)
        chain = job.result_encoder
        encoders, namespace, limit = found.encoders, self._hello.namespace, self._hello.limit
        return Returned(encode_result(encoders, job.envelope, chain, value, namespace, limit), chain)

    def _find(self, module: str, qualname: str) -> Found:
        key = module, qualname
        if key not in self._found:
            self._found[key] = self._import(module, qualname)
        return self._found[key]

    def _import(self, module: str, qualname: str) -> Found:
        found = self._named(module, qualname)
        if isinstance(found, Task):
            stem: Any = found.stem
            here = stores_here(stem.wiring)
            if here is not stem.wiring:
                self._pointed.enter_context(stem.pointed_at(here))
            scopes = stem.wiring.hooks(_SCOPE)
            return Found(found.function, found.parameters, stem.encoders, scopes, stem)
        catalogue = discover()
        encoders = TaskPayloadEncoderRegistry(catalogue=catalogue)
        return Found(found, Parameters(found), encoders, catalogue.hooks.get(_SCOPE, ()), None)

    def _named(self, module: str, qualname: str) -> Any:
        """What has this name; in the main thread, as modules expect to be imported."""
        found: Any = self._script() if module in scripts.SCRIPTS else importlib.import_module(module)
        for name in qualname.split("."):
            found = getattr(found, name)
        return found

    def _script(self) -> ModuleType:
        if self._main is None:
            if self._hello.main_path is None:
                raise StemError(
                    "The task was declared in an interactive session, which no other process can import."
                )
            self._main = scripts.load(self._hello.main_name, self._hello.main_path)
        return self._main

    def _context(self, job: Job, controls: ChildControls) -> TaskContext:
        envelope = job.envelope
        return TaskContext(
            id=envelope.id,
            name=envelope.name,
            queue=envelope.queue,
            controls=controls,
            attempt=job.attempt,
            generation=job.generation,
            headers=envelope.headers,
            meta=envelope.meta,
            root=envelope.root,
            state=self._state,
        )


class ChildControls:
    """Asks the worker for what only it can do."""

    def __init__(self, connection: socket.socket, stem: Any) -> None:
        self._connection = connection
        self._stem = stem
        self._lock = threading.Lock()

    async def heartbeat(self) -> None:
        await asyncio.to_thread(self.heartbeat_sync)

    async def extend_lease(self, seconds: float) -> None:
        await asyncio.to_thread(self.extend_lease_sync, seconds)

    async def progress(self, progress: Progress) -> None:
        await asyncio.to_thread(self.progress_sync, progress)

    async def enqueue(self, call: Signature[Any]) -> TaskHandle[Any]:
        if _in_a_transaction(call):
            own: TaskHandle[Any] = await self._own_stem().enqueue_call(call)
            return own
        return await asyncio.to_thread(self.enqueue_sync, call)

    def heartbeat_sync(self) -> None:
        self._ask(Ask("heartbeat"))

    def extend_lease_sync(self, seconds: float) -> None:
        self._ask(Ask("extend_lease", seconds))

    def progress_sync(self, progress: Progress) -> None:
        self._ask(Ask("progress", [progress.percent, progress.data]))

    def enqueue_sync(self, call: Signature[Any]) -> TaskHandle[Any]:
        """Sealed here, where the arguments are; published by the worker, which has the connection."""
        stem = self._own_stem()
        if _in_a_transaction(call):  # which is here as well
            own: TaskHandle[Any] = stem.enqueue_call_sync(call)
            return own
        draft = stem.draft_call(call)
        publish, plan = draft.publish, draft.plan
        holder = self._ask(Enqueue(publish.message.sealed, publish.retry, draft.locked_for))
        return TaskHandle(
            stem,
            holder or publish.envelope.id,
            draft.result_type,
            plan.adjustments,
            holder is not None,
            plan.asked.ignore_result,
        )

    def _own_stem(self) -> Any:
        if self._stem is None:
            raise StemError("This task was found without its Stem; enqueue through a Stem of your own.")
        return self._stem

    def _ask(self, ask: Ask | Enqueue) -> Any:
        with self._lock:
            send(self._connection, ask)
            answer: Answer = receive(self._connection)
        if answer.error is not None:
            kind, message = answer.error
            if kind == "PublishError":
                raise PublishError(message, answer.outcome)
            raise (LeaseLost if kind.endswith("LeaseLost") else StemError)(message)
        return answer.value


def _in_a_transaction(call: Signature[Any]) -> bool:
    connection = call.enqueue_options.publish_connection
    return connection is not UNSET and connection is not None


def _called(function: Callable[..., Any], args: list[Any], kwargs: dict[str, Any], soft: float | None) -> Any:
    if soft is None:
        return function(*args, **kwargs)

    def ring(*_: object) -> None:
        raise SoftTimeLimitExceeded(f"the soft time limit of {soft:g} s ended")

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, soft)
    try:
        return function(*args, **kwargs)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


async def _awaited(
    function: Callable[..., Any], args: list[Any], kwargs: dict[str, Any], soft: float | None
) -> Any:
    body: Interruptible[Any] = Interruptible(function(*args, **kwargs))
    if soft is not None:
        asyncio.get_running_loop().call_later(soft, lambda: body.interrupt(soft_limit_error(soft)))
    return await body


def _die_with_the_worker() -> None:
    if not sys.platform.startswith("linux"):
        return  # elsewhere the end of the socket tells, once the handler is over
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before it could be told
        os._exit(1)


if __name__ == "__main__":
    main()
