"""The producer: :class:`Stem`, what an application enqueues with."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Never, Self, TypeVar, overload
from uuid import UUID

from stem_core import transactions
from stem_core.assembly import Encoders, RoutingSource, arguments_from, assemble, routing_for
from stem_core.checks import LENGTH, check_kind
from stem_core.clock import instant, seconds
from stem_core.connected import Connected
from stem_core.declaring import declared
from stem_core.dispatching import publish_many, publish_one
from stem_core.envelope import Envelope, Input, new_ids
from stem_core.errors import ConfigurationError, StemError
from stem_core.handles import TaskHandle
from stem_core.loops import Residence
from stem_core.options import Adjustment, Duration, TaskEnqueueOptions, TaskOptions
from stem_core.planning import Derived, Draft
from stem_core.plugins import Catalogue
from stem_core.ports.backend import Backend
from stem_core.ports.broker import Broker
from stem_core.ports.encoder import PayloadEncoder
from stem_core.ports.outbox import Outbox
from stem_core.ports.signer import PayloadSigner
from stem_core.sealing import MAX_SEALED
from stem_core.sending import Publish
from stem_core.signature import NO_OPTIONS, Signature
from stem_core.tasks import Task, TaskDecorator
from stem_core.wiring import Wiring

if TYPE_CHECKING:
    from stem_core.control import Control
    from stem_core.dead_letters import DeadLetters
    from stem_core.explaining import Explanation, Finding

__all__ = ["Stem"]

R = TypeVar("R")
T = TypeVar("T")


class Stem(Connected):
    """Enqueues tasks through a broker, and reads what became of them from a backend.

    Made without I/O; adapters connect on ``async with stem``, ``await stem.open()`` or first use. Safe to use
    from any thread, loop, or forked child.
    """

    def __init__(
        self,
        broker: str | Broker,
        *,
        backend: str | Backend | Literal[False] | None = None,
        namespace: str = "stem",
        args_encoder: str | PayloadEncoder = "json",
        result_encoder: str | PayloadEncoder = "json",
        encoders: Encoders = (),
        signer: str | PayloadSigner | Literal[False] | None = None,
        routing: RoutingSource = None,
        strict: bool = False,
        plugins: Catalogue | Sequence[object] | None = None,
        tasks: Iterable[Task[..., Any]] = (),
        publish_timeout: Duration = 10,
        max_payload: int = MAX_SEALED,
        outbox: str | Outbox | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """:param backend: the broker's URL where a backend with its scheme exists; False for none.
        :param signer: False says "unsigned" on purpose.
        :param routing: a Routing, a mapping or a TOML file; ``STEM_ROUTING_CONFIG`` names one otherwise.
        :param strict: raise UnsupportedCapability where an option would be adjusted.
        :param publish_timeout: after how long one try of a publish fails.
        :param max_payload: most bytes of one sealed message.
        :param outbox: where ``publish_connection`` writes when the broker cannot: a URL, or an Outbox.
        :param environment: where plugins find their keys and the like; the process's own when None.
        :raises ConfigurationError: something is not installed, misspelt, or does not fit.
        """
        environment = os.environ if environment is None else environment
        wiring = assemble(
            broker,
            backend=backend,
            namespace=namespace,
            args_encoder=args_encoder,
            result_encoder=result_encoder,
            encoders=encoders,
            signer=signer,
            plugins=plugins,
            max_payload=max_payload,
            outbox=outbox,
            environment=environment,
        )
        check_kind("publish_timeout", publish_timeout, LENGTH)
        timeout = seconds(publish_timeout)
        if not 0 < timeout < float("inf"):
            raise ConfigurationError(
                f"publish_timeout={publish_timeout!r} must be a positive number of seconds"
            )
        #: The tasks declared here, by name.
        self.tasks: dict[str, Task[..., Any]] = {}
        super().__init__(
            wiring,
            tasks=self.tasks,
            routing=routing_for(routing, environment),
            strict=strict,
            publish_timeout=timeout,
        )
        if not isinstance(tasks, Iterable):
            raise TypeError(f"tasks={tasks!r} must be a list of tasks: write tasks=[add]")
        for task in tasks:
            self.add(task)

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None, **arguments: Any) -> Self:
        """A Stem from ``STEM_*`` variables; ``arguments`` are added, and win.

        :raises ConfigurationError: ``STEM_BROKER_URL`` is not set, or a value is wrong.
        """
        environment = os.environ if environment is None else environment
        return cls(**{**arguments_from(environment), "environment": environment, **arguments})

    # Operate.

    @property
    def dead_letters(self) -> DeadLetters:
        """The messages that were put aside: list, show, replay, purge."""
        from stem_core.dead_letters import DeadLetters

        return DeadLetters(self)

    @property
    def control(self) -> Control:
        """Commands to the workers: ping, inspect, pause, resume, shutdown."""
        from stem_core.control import Control

        return Control(self)

    # Tasks.

    @property
    def task(self) -> TaskDecorator:
        """Declare a task: ``@stem.task`` or ``@stem.task(name=..., queue=..., max_retries=...)``."""
        return TaskDecorator(self._declare)

    def add(self, task: Task[..., Any]) -> None:
        """Make a task known here, for workers and for enqueueing by name.

        :raises ConfigurationError: another task has its name.
        :raises TypeError: it is no task.
        """
        if not isinstance(task, Task):
            raise TypeError(f"{task!r} is not a task; decorate a function with @stem.task")
        known = self.tasks.setdefault(task.name, task)
        if known is not task:
            raise ConfigurationError(
                f"Two tasks are called {task.name!r}: {known.function!r} and {task.function!r}; give one a name="
            )

    def _declare(
        self, function: Callable[..., Any], fields: Mapping[str, Any], names: Mapping[str, Any] | None
    ) -> Task[..., Any]:
        task: Task[..., Any] = declared(self, function, fields, names)
        self.add(task)
        return task

    @overload
    def handle(self, task_id: str, result: type[R]) -> TaskHandle[R]: ...
    @overload
    def handle(self, task_id: str) -> TaskHandle[Any]: ...
    def handle(self, task_id: str, result: Any = Any) -> TaskHandle[Any]:
        """A handle to a task by its id; ``result`` is the type its result is decoded as."""
        if not isinstance(task_id, str | UUID | TaskHandle):
            raise TypeError(f"task_id={task_id!r} must be the id of a task, as text")
        return TaskHandle(self, str(task_id), result)

    # Enqueue.

    async def enqueue(
        self,
        name: str,
        args: Mapping[str, Any] | Sequence[Any] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        meta: Mapping[str, Any] | None = None,
        not_before: datetime | None = None,
        options: TaskOptions | None = None,
        enqueue_options: TaskEnqueueOptions | None = None,
        strict: bool | None = None,
        **unknown: Never,
    ) -> TaskHandle[Any]:
        """Enqueue a task by name; its handler need not be known here.

        :param args: a mapping gives keyword arguments, a sequence positional ones.
        :param headers: text that travels with the envelope.
        :param meta: plain data stored with the task's status.
        :param not_before: an aware instant; ``eta`` and ``countdown`` of ``enqueue_options`` beat it.
        :raises PublishError: the broker did not, or may not have, stored it.
        """
        if unknown:
            raise _misplaced(name, unknown)
        call = self._named(name, args, headers, meta, not_before, options, enqueue_options)
        return await self.enqueue_call(call, strict=strict)

    def enqueue_sync(
        self,
        name: str,
        args: Mapping[str, Any] | Sequence[Any] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        meta: Mapping[str, Any] | None = None,
        not_before: datetime | None = None,
        options: TaskOptions | None = None,
        enqueue_options: TaskEnqueueOptions | None = None,
        strict: bool | None = None,
        **unknown: Never,
    ) -> TaskHandle[Any]:
        """:meth:`enqueue` from code without an event loop."""
        if unknown:
            raise _misplaced(name, unknown)
        call = self._named(name, args, headers, meta, not_before, options, enqueue_options)
        return self.enqueue_call_sync(call, strict=strict)

    async def enqueue_call(self, call: Signature[R], *, strict: bool | None = None) -> TaskHandle[R]:
        """Enqueue a call: ``task.call(...)``, ``task.s(...)``.

        :raises TypeError: its arguments do not fit the handler; nothing was published.
        :raises PublishError: the broker did not, or may not have, stored it.
        """
        draft = self._planner.draft(call, strict=strict)
        del call  # many may wait at once, and need not hold on to it
        if draft.plan.asked.publish_connection is not None:
            await self._home.run(_opened)
            await transactions.commit_on(self.wiring, draft)
            return self._handle(draft)
        residence = self._home.here()
        if residence is not None and not draft.plan.asked.unique:
            try:
                await residence.coalescer.once(draft.publish)
            except StemError as error:
                await residence.coalescer.again(draft.publish, error)
            return self._handle(draft)
        return self._handle(draft, await self._home.run(partial(_publish, draft=draft), connected=False))

    def enqueue_call_sync(self, call: Signature[R], *, strict: bool | None = None) -> TaskHandle[R]:
        """:meth:`enqueue_call` from code without an event loop."""
        draft = self._planner.draft(call, strict=strict)
        if draft.plan.asked.publish_connection is not None:
            self._home.run_sync(_opened)
            transactions.commit_on_sync(self.wiring, draft)
            return self._handle(draft)
        return self._handle(
            draft, self._home.run_sync(lambda residence: _publish(residence, draft), connected=False)
        )

    async def enqueue_many(
        self, calls: Iterable[Signature[Any]], *, strict: bool | None = None
    ) -> list[TaskHandle[Any]]:
        """Enqueue calls in as few round trips as the broker allows; the handles are in their order.

        Every call is checked before the first is published.

        :raises PublishError: one was not, or may not have been, stored; ``enqueue_many`` may have stored others.
        """
        drafts = self._drafts(calls, strict)
        return await self._home.run(lambda residence: self._publish_many(residence, drafts), connected=False)

    def enqueue_many_sync(
        self, calls: Iterable[Signature[Any]], *, strict: bool | None = None
    ) -> list[TaskHandle[Any]]:
        """:meth:`enqueue_many` from code without an event loop."""
        drafts = self._drafts(calls, strict)
        return self._home.run_sync(lambda residence: self._publish_many(residence, drafts), connected=False)

    def seal_call(
        self,
        call: Signature[Any],
        *,
        input: Input | None = None,
        group: str | None = None,
        parent: str | None = None,
        root: str | None = None,
        id: str | None = None,
        strict: bool | None = None,
    ) -> tuple[Envelope, bytes]:
        """Envelope and sealed bytes of a derived message: a link, a member or callback of a group.

        Nothing is published. Its id is fixed by this; its countdown counts from its publish.
        """
        derived = Derived(input, group, parent, root)
        return self._planner.seal_derived(call, derived, id=id, strict=strict)

    def adjustments_of(self, call: Signature[Any]) -> tuple[Adjustment, ...]:
        """What is otherwise than asked of a derived message; :meth:`seal_call` counts it."""
        return self._planner.plan_derived(call, report=False).adjustments

    def draft_call(self, call: Signature[Any]) -> Draft:
        """A call made ready for somebody else to publish with :meth:`publish_drafted`: the worker of this child process."""
        return self._planner.draft(call)

    async def publish_drafted(self, publish: Publish, locked_for: float) -> str | None:
        """Publish what was drafted elsewhere. Returns the id of the task it is a duplicate of, if it is one.

        :param locked_for: seconds after which its lock is free, if it is unique.
        :raises PublishError: it was not, or may not have been, stored.
        """
        return await self._home.run(
            lambda residence: publish_one(residence.coalescer, residence.wiring.backend, publish, locked_for),
            connected=False,
        )

    # What would happen.

    def capabilities(self) -> dict[str, dict[str, Any]]:
        """What broker and backend declare: ``{"broker": {...}, "backend": {...}}``. Connects to nothing."""
        from stem_core.explaining import capabilities

        return capabilities(self.wiring)

    def explain(self, name: str, **options: Any) -> Explanation:
        """What would happen to each option of ``enqueue(name, enqueue_options=TaskEnqueueOptions(**options))``.

        Connects to nothing; whether broker and backend are one store is known once the Stem is open.

        :raises ConfigurationError: the call would be refused.
        """
        call = self._named(name, None, None, None, None, None, TaskEnqueueOptions(**options))
        from stem_core.explaining import explain

        return explain(self.wiring, self._planner, call, joined=self.committer is not None)

    def check(self) -> list[Finding]:
        """Every task here whose static options the adapters in use adjust or refuse. Connects to nothing."""
        from stem_core.explaining import check

        return check(self._planner, self.tasks)

    def _named(
        self,
        name: str,
        args: Any,
        headers: Mapping[str, str] | None,
        meta: Mapping[str, Any] | None,
        not_before: datetime | None,
        options: TaskOptions | None,
        enqueue_options: TaskEnqueueOptions | None,
    ) -> Signature[Any]:
        enqueue = enqueue_options or NO_OPTIONS
        if not_before is not None:
            enqueue = _not_before(enqueue, not_before)
        positional, keywords = _arguments(name, args)
        return Signature(
            name=name,
            args=positional,
            kwargs=keywords,
            options=options,
            enqueue_options=enqueue,
            headers=headers or {},
            meta=meta or {},
        )

    def _drafts(self, calls: Iterable[Signature[Any]], strict: bool | None) -> list[Draft]:
        now = instant(self.wiring.clock.time())
        if not isinstance(calls, Iterable):
            raise TypeError(
                f"enqueue_many takes a list of calls and not {calls!r}: write [task.call(...), ...]"
            )
        given = list(calls)
        ids = new_ids(len(given))
        draft = self._planner.draft
        drafts = [draft(call, strict=strict, now=now, id=id) for call, id in zip(given, ids, strict=True)]
        if any(each.plan.asked.publish_connection is not None for each in drafts):
            raise ConfigurationError(
                "publish_connection does not go with enqueue_many; enqueue these calls one by one"
            )
        return drafts

    async def _publish_many(self, residence: Residence, drafts: list[Draft]) -> list[TaskHandle[Any]]:
        errors = await publish_many(residence.coalescer, residence.wiring.backend, drafts)
        handles = []
        for draft, answer in zip(drafts, errors, strict=True):
            if isinstance(answer, BaseException):
                raise answer
            handles.append(self._handle(draft, answer))
        return handles

    def _handle(self, draft: Draft, holder: str | None = None) -> TaskHandle[Any]:
        """The handle of what was published, or of ``holder``, which it is a duplicate of."""
        id = draft.publish.envelope.id if holder is None else holder
        plan = draft.plan
        return TaskHandle(
            self, id, draft.result_type, plan.adjustments, holder is not None, plan.asked.ignore_result
        )


async def _publish(residence: Residence, draft: Draft) -> str | None:
    return await publish_one(residence.coalescer, residence.wiring.backend, draft.publish, draft.locked_for)


async def _opened(residence: Residence) -> Wiring:
    return residence.wiring


def _misplaced(name: str, unknown: Mapping[str, Any]) -> TypeError:
    """What ``enqueue(name, ...)`` says of keywords it does not have: they are options, or the task's arguments."""
    options = [each for each in unknown if each in TaskEnqueueOptions.__dataclass_fields__]
    if options:
        return TypeError(
            f"enqueue({name!r}) has no {options[0]!r}: write enqueue_options=TaskEnqueueOptions({options[0]}=...)"
        )
    first = next(iter(unknown))
    return TypeError(
        f"enqueue({name!r}) has no {first!r}; what the task is called with goes into args={{{first!r}: ...}}"
    )


def _not_before(enqueue: Any, not_before: Any) -> Any:
    """``enqueue`` with ``not_before``, unless it says itself when."""
    if not isinstance(not_before, datetime):
        raise TypeError(
            f"not_before={not_before!r} must be an aware datetime; for seconds from now write "
            "enqueue_options=TaskEnqueueOptions(countdown=...)"
        )
    if (
        not isinstance(enqueue, TaskEnqueueOptions)
        or enqueue.eta
        or isinstance(enqueue.countdown, int | float)
    ):
        return enqueue
    return enqueue.merged(TaskEnqueueOptions(eta=instant(not_before)))


def _arguments(name: str, args: Any) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """The positional and keyword arguments in ``args=``."""
    if args is None:
        return (), {}
    if isinstance(args, Mapping):
        return (), args
    if isinstance(args, Sequence) and not isinstance(args, str | bytes):
        return args, {}
    raise TypeError(
        f"args={args!r} of task {name!r} must be a mapping (keyword arguments) or a list (positional ones)"
    )
