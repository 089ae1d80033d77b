""":class:`FakeStem`: what an application enqueues, recorded."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from stem_core.builtin.memory.backend import MemoryBackend
from stem_core.builtin.plugin import MEMORY_BACKEND, MEMORY_BROKER
from stem_core.envelope import Envelope, Message
from stem_core.errors import StemError
from stem_core.ports.encoder import EncodeContext
from stem_core.ports.specs import AdapterOptions
from stem_core.producer import Stem
from stem_core.sealing import MAX_SEALED
from stem_core.tasks import Task
from stem_core.testing.recording import RecordingBroker

__all__ = ["FakeCall", "FakeStem"]


@dataclass(frozen=True, slots=True)
class FakeCall:
    """One task that was enqueued. ``args`` and ``kwargs`` are what travelled: plain data, decoded."""

    id: str
    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    queue: str
    priority: int
    headers: Mapping[str, str]
    meta: Mapping[str, Any]
    not_before: datetime | None
    expires: datetime | None
    envelope: Envelope

    def __str__(self) -> str:
        words = [*map(repr, self.args), *(f"{name}={value!r}" for name, value in self.kwargs.items())]
        return f"{self.name}({', '.join(words)}) on {self.queue}"


class FakeStem(Stem):
    """A Stem that records and runs nothing. Around another one, that one's tasks are recorded too::

        with FakeStem(stem) as fake:                       # or: async with
            sign_up("ops@example.com")
        fake.assert_enqueued("tasks.email", to="ops@example.com")

    Options are resolved, routed and negotiated, arguments encoded and messages sealed as they would be for
    ``stem``; only the last step is another.
    """

    def __init__(self, stem: Stem | None = None) -> None:
        """:param stem: the Stem to stand in for, while this one is entered."""
        broker = MEMORY_BROKER.capabilities if stem is None else stem.broker.capabilities
        if stem is not None and stem.wiring.outbox is not None:
            broker = replace(broker, transactional_publish=True)
        backend = MEMORY_BACKEND.capabilities
        if stem is not None and stem.backend is not None:
            backend = stem.backend.capabilities
        has_none = stem is not None and stem.backend is None
        namespace = "stem" if stem is None else stem.namespace
        self._recorder = RecordingBroker(broker)
        super().__init__(
            self._recorder,
            backend=False
            if has_none
            else MemoryBackend("memory://", AdapterOptions(namespace=namespace), backend),
            namespace=namespace,
            encoders=() if stem is None else stem.encoders,
            signer=False if stem is None else stem.wiring.signer or False,
            plugins=None if stem is None else stem.wiring.catalogue,
            max_payload=MAX_SEALED if stem is None else stem.wiring.max_payload,
            routing=None if stem is None else stem.routing,
            strict=stem is not None and stem.strict,
            tasks=() if stem is None else stem.tasks.values(),
        )
        self._stem = stem
        self._inside: list[ExitStack] = []

    @property
    def calls(self) -> list[FakeCall]:
        """Everything enqueued so far, in order; links and callbacks are published by workers, so not here."""
        return [self._call(each) for each in self._recorder.messages]

    def clear(self) -> None:
        """Forget what was enqueued so far."""
        self._recorder.messages.clear()

    def assert_enqueued(self, task: str | Task[..., Any], /, *args: Any, **kwargs: Any) -> FakeCall:
        """The first call of ``task`` with these arguments among its arguments.

        Give values as the application does or as they travel; positional and keyword are the same where the
        handler is known.

        :raises AssertionError: there is none; the message lists what there is.
        """
        name = task if isinstance(task, str) else task.name
        calls = self.calls
        for call in calls:
            if call.name == name and self._matches(call, args, kwargs):
                return call
        wanted = ", ".join([*map(repr, args), *(f"{key}={value!r}" for key, value in kwargs.items())])
        listed = "".join(f"\n  {call}" for call in calls) or " nothing"
        raise AssertionError(f"{name}({wanted}) was not enqueued. Enqueued were:{listed}")

    def assert_not_enqueued(self, task: str | Task[..., Any], /, *args: Any, **kwargs: Any) -> None:
        """The opposite of :meth:`assert_enqueued`.

        :raises AssertionError: there is such a call.
        """
        try:
            call = self.assert_enqueued(task, *args, **kwargs)
        except AssertionError:
            return
        raise AssertionError(f"{call} was enqueued")

    # Standing in for another Stem.

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            if self._stem is not None:
                stack.enter_context(self._stem.pointed_at(self.wiring))
                stack.callback(self._stem.close_sync)
            stack.callback(self.close_sync)
            self._inside.append(stack.pop_all())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inside.pop().close()

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        with ExitStack() as stack:
            if self._stem is not None:
                stack.enter_context(self._stem.pointed_at(self.wiring))
                await self._stem.open()
            self._inside.append(stack.pop_all())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stem is not None:
            await self._stem.close()
        self._inside.pop().close()
        await super().__aexit__(kind, error, trace)

    # What was enqueued.

    def _call(self, message: Message) -> FakeCall:
        envelope = self.wiring.unseal(message.sealed)
        context = EncodeContext(
            purpose="args",
            namespace=self.namespace,
            id=envelope.id,
            name=envelope.name,
            queue=envelope.queue,
            chain=envelope.encoder,
        )
        decoded: Any = self.encoders.decode(envelope.encoder, envelope.args, context)
        args, kwargs = decoded
        return FakeCall(
            id=envelope.id,
            name=envelope.name,
            args=tuple(args),
            kwargs=dict(kwargs),
            queue=envelope.queue,
            priority=envelope.priority,
            headers=dict(envelope.headers),
            meta=dict(envelope.meta),
            not_before=envelope.not_before,
            expires=envelope.expires,
            envelope=envelope,
        )

    def _matches(self, call: FakeCall, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        task = self.tasks.get(call.name) or (self._stem.tasks.get(call.name) if self._stem else None)
        names = _positional(task) if task else []
        travelled = converted = _named(names, call.args, call.kwargs)
        if task is not None:
            # Enqueued by name it may be what the handler here does not take.
            with suppress(StemError):
                converted = _named(names, *task.parameters.convert(call.args, call.kwargs))
        missing = object()
        return all(
            value in (travelled.get(key, missing), converted.get(key, missing))
            or self._plain(value) == travelled.get(key, missing)
            for key, value in _named(names, args, kwargs).items()
        )

    def _plain(self, value: Any) -> Any:
        """A value as it looks after it has travelled."""
        chain = self.encoders.default_args
        context = EncodeContext(
            purpose="args", namespace=self.namespace, id="", name="", queue="", chain=chain
        )
        try:
            return self.encoders.decode(chain, self.encoders.encode(chain, value, context), context)
        except StemError:
            return value


def _positional(task: Task[..., Any]) -> list[str]:
    """The names that positional arguments of a task go to."""
    every = list(inspect.signature(task.function).parameters.values())
    if task.parameters.wants_context:
        del every[0]
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [each.name for each in every if each.kind in kinds]


def _named(names: Sequence[str], args: Sequence[Any], kwargs: Mapping[Any, Any]) -> dict[str | int, Any]:
    """Arguments by parameter; by position where that has no name."""
    found: dict[str | int, Any] = dict(kwargs)
    for place, value in enumerate(args):
        found[names[place] if place < len(names) else place] = value
    return found
