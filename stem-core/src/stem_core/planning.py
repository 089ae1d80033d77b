"""From a call to sealed bytes: resolve, negotiate, encode, seal. No I/O.

What does not depend on the arguments is planned once for each (task, options) and kept: a plain
``add.enqueue(1, 2)`` then costs one encode and one seal.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, NamedTuple, TypeVar

import msgspec

from stem_core.clock import instant, seconds
from stem_core.coalescing import DEFAULT_RETRY
from stem_core.context import TaskContext, current_task
from stem_core.encoding import Chain
from stem_core.envelope import Envelope, Input, new_id
from stem_core.errors import ConfigurationError, EncodeError, PayloadTooLarge
from stem_core.names import REPLY_TASK
from stem_core.negotiation import negotiate, refuse
from stem_core.options import Adjustment, TaskEnqueueOptions, TaskMetadata, TaskOptions
from stem_core.plain import in_arguments
from stem_core.ports.encoder import EncodeContext
from stem_core.publishing import message_of, queued_of
from stem_core.resolving import Asked, fields_of, limits_of, resolve
from stem_core.routing import Routing
from stem_core.sealing import Mould
from stem_core.sending import Publish
from stem_core.shared.uniqueness import lock_key
from stem_core.signature import Signature, check_call
from stem_core.tasks import Task
from stem_core.wiring import Wiring

R = TypeVar("R")

__all__ = ["Derived", "Draft", "Plan", "Planner"]

_log = logging.getLogger("stem")
#: Plans kept; options made anew for each call would fill memory otherwise.
_MOST_PLANS: Final = 512
#: Whoever publishes a derived message cannot first ask for a lock.
_NO_LOCK: Final = (
    Adjustment("unique", True, False, "a link or a task of a graph is published without taking its lock"),
)
#: Options of one call only: a plan with them is not kept.
_PERSONAL: Final = ("task_id", "eta", "publish_connection", "link", "link_error")


class Plan(NamedTuple):
    """All of a publish that does not depend on its arguments. ``fields`` are the envelope's."""

    asked: Asked
    adjustments: tuple[Adjustment, ...]
    """Those of the links sealed into it too, under names such as ``link.unique``."""
    reported: tuple[Adjustment, ...]
    """Its own: a link reports its own when it is sealed."""
    refused: tuple[Adjustment, ...]
    """Those that ``strict`` does not allow."""
    fields: Mapping[str, Any]
    chain: Chain
    due_after: float
    expires_after: float | None
    group_rate_header: str | None
    header_hooks: bool
    has_derived: bool
    mould: Mould | None
    """Where a call without headers, meta or parent needs nothing but its id, arguments and time filled in."""


class Draft(msgspec.Struct, frozen=True, gc=False):
    """A call ready to be published. (``gc=False``: nothing in it can refer back to it.)"""

    publish: Publish
    plan: Plan
    result_type: Any

    @property
    def locked_for(self) -> float:
        """Seconds after which the lock of a unique task is free, whatever happened."""
        asked, queued = self.plan.asked, self.publish.queued
        if asked.options.unique_for is not None:
            return seconds(asked.options.unique_for)
        return asked.result_ttl if queued is None or queued.ttl is None else queued.ttl


class Derived(NamedTuple):
    """How a message hangs on another task or group: what it gets as input, and whose outcome it is part of."""

    input: Input | None = None
    group: str | None = None
    parent: str | None = None
    root: str | None = None


class Planner:
    """Plans and seals for one wiring's capabilities. Safe to use from any thread."""

    def __init__(
        self, wiring: Wiring, tasks: Mapping[str, Task[..., Any]], routing: Routing, strict: bool
    ) -> None:
        """:param tasks: gives calls by name the options and types of their tasks."""
        self._wiring = wiring
        self._tasks = tasks
        self._routing = routing
        self._strict = strict
        self._plans: dict[tuple[Any, ...], tuple[Plan, tuple[Any, ...]]] = {}
        self._broker = wiring.broker.capabilities
        self._backend = wiring.backend.capabilities if wiring.backend is not None else None
        #: How often each option was adjusted.
        self.adjusted: Counter[str] = Counter()

    def plan(self, call: Signature[Any], *, strict: bool | None = None, report: bool = True) -> Plan:
        """The plan of a call, made once for the same name and options.

        :param report: whether to count and log what it adjusts, and refuse it when ``strict``.
        :raises UnsupportedCapability: ``strict``, and something would be adjusted.
        """
        enqueue = call.enqueue_options
        key = (call.name, id(call.options), id(enqueue), id(call.metadata))
        found = self._plans.get(key)
        if found is None:
            plan = self._make(call.name, call.options, enqueue, call.metadata)
            if all(not getattr(enqueue, name) for name in _PERSONAL):
                if len(self._plans) >= _MOST_PLANS:
                    self._plans.clear()
                # With what the ids of the key stand for: while that lives, nothing else has these ids.
                self._plans[key] = (plan, (call.options, enqueue, call.metadata))
        else:
            plan = found[0]
        if plan.reported and report:
            self._report(plan.asked.name, plan.reported, plan.refused, strict)
        return plan

    def plan_derived(self, call: Signature[Any], *, strict: bool | None = None, report: bool = True) -> Plan:
        """:meth:`plan` of a derived message, which has no lock."""
        plan = self.plan(self.completed(call), strict=strict, report=report)
        if not plan.asked.unique:
            return plan
        if report:
            self._report(plan.asked.name, _NO_LOCK, _NO_LOCK, strict)
        return plan._replace(
            asked=msgspec.structs.replace(plan.asked, unique=False),
            adjustments=(*plan.adjustments, *_NO_LOCK),
        )

    def preview(self, call: Signature[Any]) -> Plan:
        """The plan of a call that is not made: nothing is counted, logged or refused for ``strict``."""
        call = self.completed(call)
        return self._make(call.name, call.options, call.enqueue_options, call.metadata)

    def completed(self, call: Signature[R]) -> Signature[R]:
        """A call by name with what its task says, where the task is known here."""
        if call.options is not None and call.metadata is not None:
            return call
        task = self._tasks.get(call.name)
        if task is None:
            return call
        return msgspec.structs.replace(
            call,
            options=call.options or task.options,
            metadata=call.metadata or task.metadata,
            result_type=task.parameters.result_type if call.result_type is Any else call.result_type,
        )

    def draft(
        self,
        call: Signature[Any],
        *,
        strict: bool | None = None,
        now: datetime | None = None,
        id: str | None = None,
    ) -> Draft:
        """A call made ready to be published; its id is ``task_id``, else ``id``, else a new one.

        :raises TypeError: its arguments do not fit the handler.
        :raises EncodeError: one of them cannot be carried.
        :raises PayloadTooLarge: they are more than fits in a message.
        """
        try:
            call.check()
        except AttributeError:
            check_call(call)
            raise
        call = self.completed(call)
        plan = self.plan(call, strict=strict)
        now = now or datetime.fromtimestamp(self._wiring.clock.time(), UTC)
        id = plan.asked.task_id or id or new_id()
        if plan.mould is None or call.headers or call.meta or _parent(plan) is not None:
            envelope = self.envelope(call, plan, now, id=id, strict=strict)
            sealed = self.seal(envelope)
        else:
            try:
                args = plan.chain.encode([[*call.args], {**call.kwargs}], None)
            except EncodeError as error:
                raise in_arguments(error, call.name) from None
            envelope = Envelope(id=id, args=args, enqueued_at=now, **plan.fields)
            sealed = self.seal(envelope, plan.mould.fill(id, args, now))
        message = message_of(envelope, sealed, self._broker, once=plan.asked.once)
        queued = None if self._backend is None else queued_of(envelope)
        retry = plan.asked.publish_retry
        publish = Publish(envelope=envelope, message=message, queued=queued, retry=retry)
        return Draft(publish, plan, call.result_type)

    def envelope(
        self,
        call: Signature[Any],
        plan: Plan,
        now: datetime,
        *,
        id: str | None = None,
        derived: Derived | None = None,
        strict: bool | None = None,
    ) -> Envelope:
        """The envelope of a call; a derived one counts its delay from its own publish.

        :param strict: for the links sealed into it, as for :meth:`plan`.
        """
        asked = plan.asked
        id = id or asked.task_id or new_id()
        parent = _parent(plan)
        fields = dict(plan.fields)
        fields["args"] = self._encode(call, plan, id, fields)
        if call.headers or plan.header_hooks:
            fields["headers"] = self._headers(call, asked, id)
        if call.meta:
            fields["meta"] = dict(call.meta)
        if derived is not None:
            fields |= derived._asdict()
            fields["delay"] = plan.due_after
        else:
            if plan.due_after:
                fields["not_before"] = now + timedelta(seconds=plan.due_after)
            if parent is not None:
                fields["parent"], fields["root"] = parent.id, parent.root
        if plan.expires_after is not None:
            fields["expires"] = now + timedelta(seconds=plan.expires_after)
        if plan.group_rate_header is not None:
            value = fields.get("headers", _NOTHING).get(plan.group_rate_header)
            fields["limits"] = msgspec.structs.replace(plan.fields["limits"], group_rate_key=value)
        if plan.has_derived:
            fields |= self._seal_derived(asked, id, fields.get("root"), now, strict)
        return Envelope(id=id, enqueued_at=now, **fields)

    def seal(self, envelope: Envelope, inner: bytes | None = None) -> bytes:
        """The sealed bytes. ``inner``: as a mould gives them.

        :raises PayloadTooLarge: more than ``max_payload``, or than the broker takes.
        """
        sealed = self._wiring.seal(envelope, inner)
        most = self._broker.max_size
        if most is not None and len(sealed) > most:
            raise PayloadTooLarge(
                f"The message of {envelope.name!r} is {len(sealed)} bytes; the broker takes at most {most}. Pass a "
                "reference to the data, or compress it (args_encoder='json+gzip')."
            )
        return sealed

    def _make(
        self,
        name: str,
        options: TaskOptions | None,
        enqueue: TaskEnqueueOptions,
        metadata: TaskMetadata | None,
    ) -> Plan:
        wiring = self._wiring
        asked = resolve(
            name,
            options,
            enqueue,
            metadata,
            routing=self._routing,
            encoders=wiring.encoders,
            default_retry=DEFAULT_RETRY,
        )
        now = instant(wiring.clock.time())
        asked, adjustments = negotiate(asked, self._broker, self._backend, now=now)
        self._check_backend(asked)
        if asked.unique and asked.publish_connection is not None:
            raise ConfigurationError(
                f"Task {name!r} is unique, and its lock cannot be part of the transaction of publish_connection; "
                "drop one of the two"
            )
        limits = limits_of(asked)
        chain = wiring.encoders.chain(asked.encoder)
        by_header = limits is not None and limits.group_rate_limit and not limits.group_rate_key
        header_hooks = bool(wiring.hooks("stem_enqueue_headers"))
        has_derived = bool(asked.link or asked.link_error or asked.reply_to)
        expires_after = asked.expires if isinstance(asked.expires, float) else None
        # An empty mapping that all calls share costs nothing to make, and the garbage collector nothing to count.
        fields = {**_EMPTY, **fields_of(asked, limits)}
        plain = not (
            header_hooks
            or has_derived
            or by_header
            or chain.wants_context
            or asked.unique
            or asked.countdown
            or expires_after
        )
        return Plan(
            asked=asked,
            adjustments=(*asked.adjustments, *adjustments, *self._of_links(asked)),
            reported=(*asked.adjustments, *adjustments),
            refused=adjustments,
            fields=fields,
            chain=chain,
            due_after=asked.countdown,
            expires_after=expires_after,
            group_rate_header=asked.options.group_rate_key_header if by_header else None,
            header_hooks=header_hooks,
            has_derived=has_derived,
            mould=Mould(Envelope(id="id", args=b"", enqueued_at=now, **fields)) if plain else None,
        )

    def _check_backend(self, asked: Asked) -> None:
        for option in ("link", "link_error", "reply_to"):
            if getattr(asked, option) and self._backend is None:
                raise ConfigurationError(
                    f"Task {asked.name!r} has {option}, which gets its input from the backend, and this Stem has none; "
                    "give one: Stem(..., backend=URL)"
                )

    def _of_links(self, asked: Asked) -> list[Adjustment]:
        return [
            replace(each, option=f"{place}.{each.option}")
            for place, signatures in (("link", asked.link), ("link_error", asked.link_error))
            for signature in signatures
            if isinstance(signature, Signature)
            for each in self.plan_derived(signature, report=False).adjustments
        ]

    def _report(
        self,
        name: str,
        adjustments: tuple[Adjustment, ...],
        refused: tuple[Adjustment, ...],
        strict: bool | None,
    ) -> None:
        if self._strict if strict is None else strict:
            refuse(name, refused)
        for each in adjustments:
            if not self.adjusted[each.option]:
                _log.warning(
                    "Task %s: %s=%r became %r: %s (logged once; handle.adjustments has all)",
                    name,
                    each.option,
                    each.requested,
                    each.effective,
                    each.reason,
                )
            self.adjusted[each.option] += 1

    def _encode(self, call: Signature[Any], plan: Plan, id: str, fields: dict[str, Any]) -> bytes:
        asked, chain = plan.asked, plan.chain
        args = [[*call.args], {**call.kwargs}]
        context = None
        if chain.wants_context:
            context = EncodeContext(
                purpose="args",
                namespace=self._wiring.namespace,
                id=id,
                name=asked.name,
                queue=asked.queue,
                chain=chain.id,
            )
        try:
            if not asked.unique:
                return chain.encode(args, context)
            value = chain.encode_value(args, context)
        except EncodeError as error:
            raise in_arguments(error, asked.name) from None
        fields["unique"] = lock_key(asked.name, asked.queue, asked.options.unique_key, value)
        return chain.encode_bytes(value, context)

    def _headers(self, call: Signature[Any], asked: Asked, id: str) -> dict[str, str]:
        headers: dict[str, str] = {}
        about = {"name": asked.name, "queue": asked.queue, "id": id, "headers": call.headers}
        for added in self._wiring.emit("stem_enqueue_headers", call=about):
            headers |= added or {}
        headers |= call.headers
        given: Mapping[Any, Any] = headers  # whatever an application passed
        for name, value in given.items():
            if not isinstance(name, str) or not isinstance(value, str) or not name.isprintable():
                raise TypeError(f"header {name!r}: {value!r} must be text under a printable name")
        return headers

    def _seal_derived(
        self, asked: Asked, id: str, root: str | None, now: datetime, strict: bool | None
    ) -> dict[str, tuple[bytes, ...]]:
        """Links and the reply, sealed here so that workers need no signing key."""
        root = root or id
        found: dict[str, list[bytes]] = {"on_success": [], "on_failure": [], "on_end": []}
        given: list[tuple[str, Literal["one", "error"], tuple[Any, ...]]] = [
            ("on_success", "one", asked.link),
            ("on_failure", "error", asked.link_error),
        ]
        for place, kind, signatures in given:
            for each in signatures:
                if not isinstance(each, Signature):
                    raise TypeError(f"link {each!r} is not a signature; write task.s(...) or task.si(...)")
                input = Input(kind="none" if each.immutable else kind, task=id)
                derived = Derived(input, None, id, root)
                found[place].append(self.seal_derived(each, derived, now=now, strict=strict)[1])
        if asked.reply_to:
            options = TaskEnqueueOptions(queue=asked.reply_to)
            reply: Signature[Any] = Signature(name=REPLY_TASK, enqueue_options=options)
            derived = Derived(Input(kind="reply", task=id), None, id, root)
            found["on_end"].append(self.seal_derived(reply, derived, now=now, strict=strict)[1])
        return {place: tuple(sealed) for place, sealed in found.items() if sealed}

    def seal_derived(
        self,
        call: Signature[Any],
        derived: Derived,
        *,
        id: str | None = None,
        now: datetime | None = None,
        strict: bool | None = None,
    ) -> tuple[Envelope, bytes]:
        """A message to be published by a worker or a store: its id is fixed now, its delay counts from then.

        :raises TypeError: its arguments, with the input, do not fit the handler.
        """
        call.check(1 if derived.input is not None and derived.input.kind != "none" else 0)
        call = self.completed(call)
        plan = self.plan_derived(call, strict=strict)
        envelope = self.envelope(
            call, plan, now or instant(self._wiring.clock.time()), id=id, derived=derived, strict=strict
        )
        return envelope, self.seal(envelope)


def _parent(plan: Plan) -> TaskContext | None:
    """The task this call is made in, if it is to be named as its parent."""
    return current_task() if plan.asked.add_to_parent else None


_NOTHING: Final[Mapping[str, str]] = {}
_EMPTY: Final[Mapping[str, Mapping[str, Any]]] = {"headers": {}, "meta": {}, "route": {}}
