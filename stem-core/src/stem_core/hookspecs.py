"""The hooks a Stem plugin may implement.

A hook describes; it never connects and imports no driver. Implementations are plain functions,
collected once per ``Stem`` and called one by one: one that raises is logged and changes nothing.
Write them with :data:`hookimpl`, name them in an entry point of group ``stem``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import pluggy

from stem_core.envelope import Envelope
from stem_core.ports.outbox import OutboxSpec
from stem_core.ports.specs import BackendSpec, BrokerSpec, EncoderSpec, SignerSpec
from stem_core.status import TaskError

__all__ = ["CONTRACT_VERSION", "ENTRY_POINT_GROUP", "hookimpl", "hookspec"]

#: Raised only when a conforming adapter must change to keep working.
CONTRACT_VERSION: Final = 1
ENTRY_POINT_GROUP: Final = "stem"

hookspec = pluggy.HookspecMarker("stem")
hookimpl = pluggy.HookimplMarker("stem")


# What a plugin provides. Called once, at discovery.


@hookspec
def stem_brokers() -> Iterable[BrokerSpec]:  # type: ignore[empty-body]
    """Describe the brokers this plugin provides."""


@hookspec
def stem_backends() -> Iterable[BackendSpec]:  # type: ignore[empty-body]
    """Describe the result backends this plugin provides."""


@hookspec
def stem_outboxes() -> Iterable[OutboxSpec]:  # type: ignore[empty-body]
    """Describe the outboxes this plugin provides."""


@hookspec
def stem_encoders() -> Iterable[EncoderSpec]:  # type: ignore[empty-body]
    """Describe the payload encoders this plugin provides."""


@hookspec
def stem_signers() -> Iterable[SignerSpec]:  # type: ignore[empty-body]
    """Describe the signers this plugin provides."""


# What a plugin may observe or add in a producer.


@hookspec
def stem_enqueue_headers(call: Mapping[str, Any]) -> Mapping[str, str]:  # type: ignore[empty-body]
    """Headers to add to a publish (a ``traceparent``, say); the caller's own win.

    ``call`` holds ``name``, ``queue``, ``id`` and ``headers``.
    """


@hookspec
def stem_before_publish(envelope: Envelope) -> None:
    """An envelope is about to be published."""


@hookspec
def stem_after_publish(envelope: Envelope, accepted: bool) -> None:
    """An envelope was published; ``accepted`` is False when its ``once`` id was already known."""


# What a plugin may observe or wrap in a worker. ``attempt`` counts from 0.


@hookspec
def stem_task_scope(context: Any) -> AbstractAsyncContextManager[Any]:  # type: ignore[empty-body]
    """An async context manager entered around a handler, in the worker process, on its loop.

    ``context`` is the run's ``TaskContext``.
    """


@hookspec
def stem_task_received(envelope: Envelope, attempt: int) -> None:
    """A delivery was opened and will be run."""


@hookspec
def stem_task_started(envelope: Envelope, attempt: int) -> None:
    """The handler is about to be called."""


@hookspec
def stem_task_succeeded(envelope: Envelope, attempt: int, seconds: float) -> None:
    """The handler returned, after ``seconds``; its result is recorded."""


@hookspec
def stem_task_failed(envelope: Envelope, attempt: int, error: TaskError, seconds: float | None) -> None:
    """The task ended in failure, after ``seconds`` in its handler; nothing more is tried.

    ``seconds`` is None when the handler was not called: an unknown task, arguments that cannot be decoded.
    """


@hookspec
def stem_task_retried(
    envelope: Envelope, attempt: int, error: TaskError, delay: float, seconds: float | None
) -> None:
    """The run failed, after ``seconds`` in its handler, and is tried again after ``delay`` seconds."""


@hookspec
def stem_task_dead_lettered(id: str, queue: str, reason: str) -> None:
    """A message was put aside. Its bytes may have been unreadable, so only the broker's words are given."""


@hookspec
def stem_task_revoked(envelope: Envelope, reason: str) -> None:
    """The task was recorded ``cancelled``: revoked, expired or part of a cancelled graph."""


@hookspec
def stem_worker_started(worker_id: str, queues: tuple[str, ...]) -> None:
    """A worker begins to consume."""


@hookspec
def stem_worker_stopped(worker_id: str) -> None:
    """A worker has stopped; nothing of its is in flight."""
