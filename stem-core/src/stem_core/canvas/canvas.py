"""Submitting chains, groups and chords: every group is created before the first message is published.

From there workers drive the graph; the caller may die. State key ``graph:<id>`` keeps which groups and tasks a
graph has, for cancellation from anywhere, as long as its results live.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from stem_core.canvas.dispatch import BatchStatus, GraphHandle, GroupHandle, backend_of, batch_status
from stem_core.canvas.graph import Graph, Group, Node, PlannedTask, chain, chord, expand, group, queue_of
from stem_core.checks import duration, positive_duration
from stem_core.clock import instant
from stem_core.context import current_task
from stem_core.encoding import TaskPayloadEncoderRegistry
from stem_core.envelope import Envelope, new_id
from stem_core.errors import AdapterError, ConfigurationError, PublishError
from stem_core.handles import Runs, TaskHandle
from stem_core.names import DEADLINE_TASK
from stem_core.options import Adjustment, Duration, TaskMetadata, TaskOptions, TaskRetryPolicy, check_id
from stem_core.ports.backend import Backend
from stem_core.publishing import callback_of, message_of, queued_of
from stem_core.sending import Publish
from stem_core.signature import Signature
from stem_core.status import StatusUpdate, TaskState
from stem_core.wiring import Wiring

if TYPE_CHECKING:
    from stem_core.canvas.graph import Chain, Chord
    from stem_core.producer import Stem

__all__ = ["Canvas"]

R = TypeVar("R")

DAY: Final = 86_400.0
#: Groups outlive their deadline by this much, so that the deadline finds them (seconds).
GRACE: Final = 3600.0
#: The ``reason`` of tasks and groups that were cancelled with their graph.
CANCELLED: Final = "cancelled"
#: Members whose cancellation is recorded in one call.
CHUNK: Final = 500
#: Longest id of a graph: the ids of its tasks are made of it.
LONGEST_ID: Final = 100


class GraphRecord(msgspec.Struct, frozen=True):
    """What is kept of a graph."""

    groups: tuple[str, ...]
    outputs: tuple[str, ...]


class Canvas:
    """Composes the tasks of a :class:`~stem_core.Stem`.

    :param encoders: (or ``args_encoder``, ``result_encoder``) used in place of the Stem's for what is submitted here.
    """

    def __init__(
        self,
        stem: Stem,
        *,
        encoders: TaskPayloadEncoderRegistry | None = None,
        args_encoder: Any = None,
        result_encoder: Any = None,
    ) -> None:
        self._stem = stem
        self._encoding: dict[str, Any] = {}
        if encoders is not None:
            stem.encoders.include(encoders)
            self._encoding = {"args": encoders.default_args, "result": encoders.default_result}
        if args_encoder is not None:
            self._encoding["args"] = stem.encoders.resolve(args_encoder)
        if result_encoder is not None:
            self._encoding["result"] = stem.encoders.resolve(result_encoder)

    @property
    def runs(self) -> Runs:
        """Where work on the stores is done."""
        return self._stem

    async def chain(
        self,
        steps: Iterable[Node],
        *,
        id: str | None = None,
        deadline: Duration | datetime | None = None,
        ttl: Duration = DAY,
    ) -> GraphHandle[Any]:
        """Run ``steps`` one after another; each gets the result of the one before as its first argument.

        :param deadline: seconds from now, or an instant, after which what is not done has failed; default ``ttl``.
        :param ttl: seconds the groups are kept, from the last outcome.
        :raises TypeError: a call's arguments, with the input it will get, do not fit its task.
        :raises PublishError: the stores did not, or may not have, stored all of it; again with the same ``id`` is safe.
        """
        graph = expand(chain(steps), _graph_id(id))
        return await self._graph(graph, deadline, ttl)

    async def chord(
        self,
        body: Iterable[Node] | Group[Any],
        callback: Signature[R] | Chain[R] | Chord[R],
        *,
        id: str | None = None,
        deadline: Duration | datetime | None = None,
        ttl: Duration = DAY,
    ) -> GraphHandle[R]:
        """Run ``body`` side by side, then ``callback`` once with the results in the body's order."""
        graph = expand(chord(body, callback), _graph_id(id))
        return await self._graph(graph, deadline, ttl)

    async def group(
        self,
        members: Iterable[Signature[R] | Chain[R] | Group[Any] | Chord[R]],
        *,
        id: str | None = None,
        deadline: Duration | datetime | None = None,
        ttl: Duration = DAY,
    ) -> GroupHandle[R]:
        """Run ``members`` side by side."""
        graph = expand(group(members), _graph_id(id))
        await self._submitted(graph, deadline, ttl)
        return GroupHandle(self, graph.id, graph.outputs, _types(graph), self._adjustments(graph))

    async def submit_batch(
        self,
        signatures: Iterable[Signature[R] | Chain[R] | Group[Any] | Chord[R]],
        *,
        id: str | None = None,
        ttl: Duration = DAY,
    ) -> GroupHandle[R]:
        """:meth:`group` that is idempotent by ``id``: submitted again, nothing is published twice.

        :raises ValueError: there is nothing to submit.
        """
        given = tuple(signatures)
        if not given:
            raise ValueError("submit_batch() got no signatures; a batch needs at least one")
        return await self.group(given, id=id, ttl=ttl)

    async def inspect_batch(self, id: str) -> BatchStatus:
        """How far a group or batch is.

        :raises ConfigurationError: no group of that id is known (any more).
        """

        async def work(wiring: Wiring) -> BatchStatus:
            record = await backend_of(wiring).group_get(f"{id}.g1", outcomes=False)
            if record is None:
                raise ConfigurationError(
                    f"No batch {id!r} is known; it never was submitted, or its ttl has passed"
                )
            states = {member: outcome.state for member, outcome in record.outcomes.items()}
            return batch_status(id, record.members, states)

        return await self._stem.run(work)

    async def cancel(self, id: str, *, reason: str = CANCELLED) -> int:
        """Close every group of a graph and record ``cancelled`` for each of its tasks that has not ended.

        Answers how many were recorded. What runs at the moment runs to its end, unrecorded.

        :raises ConfigurationError: no graph of that id is known (any more).
        """
        return await self._stem.run(lambda wiring: _cancel(wiring, id, reason))

    async def _graph(
        self, graph: Graph, deadline: Duration | datetime | None, ttl: Duration
    ) -> GraphHandle[Any]:
        await self._submitted(graph, deadline, ttl)
        (last,) = graph.outputs
        handle: TaskHandle[Any] = TaskHandle(self._stem, last, _types(graph).get(last, Any))
        return GraphHandle(self, graph.id, handle, self._adjustments(graph))

    async def _submitted(self, graph: Graph, deadline: Duration | datetime | None, ttl: Duration) -> None:
        kept = positive_duration("ttl", ttl)
        try:
            await self._stem.run(lambda wiring: self._submit(wiring, graph, deadline, kept))
        except (AdapterError, TimeoutError) as error:  # of the groups: no message was published yet
            why = str(error) or f"no answer within {self._stem.publish_timeout:g} s"
            raise PublishError(f"Graph {graph.id} was not submitted: {why}", "refused") from error

    async def _submit(
        self, wiring: Wiring, graph: Graph, deadline: Duration | datetime | None, ttl: float
    ) -> None:
        backend = backend_of(wiring)
        now = instant(wiring.clock.time())
        due = _due(deadline, now, ttl)
        kept = max(ttl, (due - now) / timedelta(seconds=1)) + GRACE
        starts = [self._sealed(task) for task in graph.starts]
        callbacks = {each.id: [self._sealed(task) for task in each.callback] for each in graph.groups}
        for each in graph.groups:  # last first: whoever completes one finds the next
            stored = [
                callback_of(envelope, sealed, wiring.broker.capabilities)
                for envelope, sealed in callbacks[each.id]
            ]
            async with asyncio.timeout(self._stem.publish_timeout):
                await backend.group_create(each.id, each.members, stored, due, kept)
        if backend.capabilities.state:
            async with asyncio.timeout(self._stem.publish_timeout):
                await _remember(backend, graph, kept)
        publishes = [_publish(wiring, envelope, sealed) for envelope, sealed in starts]
        if graph.groups:
            publishes.insert(0, self._deadline(wiring, graph, due, now))
        await self._stem.publish(publishes)

    def _sealed(self, task: PlannedTask) -> tuple[Envelope, bytes]:
        signature = task.signature
        if self._encoding:
            signature = _encoded(signature, self._encoding)
        parent = current_task() if signature.enqueue_options.add_to_parent is not False else None
        return self._stem.seal_call(
            signature,
            input=task.input,
            group=task.group,
            id=task.id,
            parent=parent.id if parent else None,
            root=parent.root if parent else None,
        )

    def _adjustments(self, graph: Graph) -> list[Adjustment]:
        found: list[Adjustment] = []
        for task in _tasks(graph):
            found += [each for each in self._stem.adjustments_of(task.signature) if each not in found]
        return found

    def _deadline(self, wiring: Wiring, graph: Graph, due: datetime, now: datetime) -> Publish:
        # Closed from the first group on: what hangs on a closed group fails by itself, and closes the next.
        groups = [each.id for each in reversed(graph.groups)]
        wait = max(0.0, (due - now) / timedelta(seconds=1))
        # Nobody else fails what is missing: an outage of the backend, as long as the groups are there, must not stop it.
        longest = wiring.broker.capabilities.max_delay
        pause = 30.0 if longest is None else min(30.0, longest)
        again = TaskRetryPolicy(backoff=True, default_delay=min(1.0, pause), backoff_max=pause)
        options = TaskOptions(
            queue=_queue(graph),
            ignore_result=True,
            max_retries=math.ceil(GRACE / max(pause, 1.0)),
            retry_policy=again,
        )
        signature: Signature[Any] = Signature(name=DEADLINE_TASK, args=groups, options=options)
        # Where the broker cannot delay so long, workers hold it: that is no reason for ``strict`` to refuse the graph.
        envelope, sealed = self._stem.seal_call(
            signature.with_options(countdown=wait), id=f"{graph.id}.deadline", strict=False
        )
        return _publish(wiring, envelope, sealed)


def _graph_id(id: str | None) -> str:
    if id is None:
        return new_id()
    if len(check_id(id)) > LONGEST_ID:
        raise ValueError(
            f"{id!r} is {len(id)} characters long; the id of a graph may be at most {LONGEST_ID}"
        )
    return id


def _due(deadline: Duration | datetime | None, now: datetime, ttl: float) -> datetime:
    if isinstance(deadline, datetime):
        duration("deadline", max(0.0, (instant(deadline) - now).total_seconds()))  # no further than any other
        return instant(deadline)
    return now + timedelta(seconds=ttl if deadline is None else duration("deadline", deadline))


def _queue(graph: Graph) -> str:
    return queue_of(graph.starts[0].signature) if graph.starts else "default"


def _publish(wiring: Wiring, envelope: Envelope, sealed: bytes) -> Publish:
    message = message_of(envelope, sealed, wiring.broker.capabilities, once=True)
    return Publish(envelope=envelope, message=message, queued=queued_of(envelope))


async def _remember(backend: Backend, graph: Graph, kept: float) -> None:
    record = GraphRecord(tuple(each.id for each in reversed(graph.groups)), graph.outputs)
    # Submitted again it is the same graph, so the first word stands.
    await backend.state_write(f"graph:{graph.id}", msgspec.msgpack.encode(record), expect=0, ttl=kept)


async def _cancel(wiring: Wiring, id: str, reason: str) -> int:
    backend = backend_of(wiring)
    found = await backend.state_read(f"graph:{id}") if backend.capabilities.state else None
    if found is None or found.value is None:
        raise ConfigurationError(f"No graph {id!r} is known; it never was submitted, or its ttl has passed")
    record = msgspec.msgpack.decode(found.value, type=GraphRecord)
    tasks = dict.fromkeys(record.outputs)
    for name in record.groups:
        await backend.group_close(name, reason)
        each = await backend.group_get(name, outcomes=False)
        if each is not None:
            tasks |= dict.fromkeys((*each.members, *(callback.message.id for callback in each.callback)))
    return await _record_cancelled(wiring, backend, list(tasks), reason)


async def _record_cancelled(wiring: Wiring, backend: Backend, ids: Sequence[str], reason: str) -> int:
    recorded = 0
    now = instant(wiring.clock.time())
    for start in range(0, len(ids), CHUNK):
        some = ids[start : start + CHUNK]
        statuses = await backend.fetch(some)
        updates = [
            StatusUpdate(
                id=id,
                state=TaskState.CANCELLED,
                generation=status.generation if status else 0,
                attempt=status.attempt if status else 0,
                reason=reason,
                finished_at=now,
                ttl=DAY,
            )
            for id, status in zip(some, statuses, strict=True)
            if status is None or not status.terminal
        ]
        recorded += sum(await backend.record(updates))
        if wiring.broker.capabilities.withdraw:
            await wiring.broker.withdraw([each.id for each in updates])
    return recorded


def _types(graph: Graph) -> Mapping[str, Any]:
    return {task.id: task.signature.result_type for task in _tasks(graph)}


def _tasks(graph: Graph) -> list[PlannedTask]:
    return [*graph.starts, *(task for each in graph.groups for task in each.callback)]


def _encoded(signature: Signature[Any], encoding: Mapping[str, Any]) -> Signature[Any]:
    metadata = signature.metadata or TaskMetadata()
    changed = replace(
        metadata,
        args_encoder=metadata.args_encoder or encoding.get("args"),
        result_encoder=metadata.result_encoder or encoding.get("result"),
    )
    return msgspec.structs.replace(signature, metadata=changed)
