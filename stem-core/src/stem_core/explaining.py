"""What would happen to a call, and to every task, on the adapters in use: data for ``stem explain`` and ``stem check``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from stem_core.errors import StemError
from stem_core.options import UNSET, Adjustment, TaskEnqueueOptions, TaskOptions
from stem_core.planning import Plan, Planner
from stem_core.signature import NO_OPTIONS, Signature
from stem_core.tasks import Task
from stem_core.wiring import Wiring

__all__ = ["Explanation", "Finding", "OptionPlan", "capabilities", "check", "explain"]


@dataclasses.dataclass(frozen=True, slots=True)
class OptionPlan:
    """One option of a call: what was asked, what will be done, and why where that differs."""

    option: str
    requested: Any
    effective: Any
    reason: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The plan of one call: where it goes, how it is encoded, and what becomes of each option."""

    name: str
    queue: str
    priority: int
    route: Mapping[str, str]
    encoder: str
    result_encoder: str
    signed: bool
    round_trips: int
    """To the stores, for one publish: 1 when message and status row go together."""
    options: tuple[OptionPlan, ...]
    adjustments: tuple[Adjustment, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with one task's static options: adjustments, or the error that refuses it."""

    task: str
    adjustments: tuple[Adjustment, ...] = ()
    error: str | None = None


def capabilities(wiring: Wiring) -> dict[str, dict[str, Any]]:
    """What broker and backend declare, by name; no connection is made."""
    found = {"broker": dataclasses.asdict(wiring.broker.capabilities)}
    if wiring.backend is not None:
        found["backend"] = dataclasses.asdict(wiring.backend.capabilities)
    return found


def explain(wiring: Wiring, planner: Planner, call: Signature[Any], joined: bool) -> Explanation:
    """The plan of ``call``; nothing is published.

    :param joined: whether broker and backend are one store.
    :raises ConfigurationError: the call would be refused.
    """
    call = planner.completed(call)
    plan = planner.preview(call)
    asked = plan.asked
    trips = 1 if wiring.backend is None or joined else 2
    return Explanation(
        name=asked.name,
        queue=asked.queue,
        priority=asked.priority,
        route=asked.route,
        encoder=asked.encoder,
        result_encoder=asked.result_encoder or wiring.encoders.default_result,
        signed=wiring.signer is not None,
        round_trips=trips + (2 if asked.unique else 0),
        options=tuple(_options(call, plan)),
        adjustments=plan.adjustments,
    )


def check(planner: Planner, tasks: Mapping[str, Task[..., Any]]) -> list[Finding]:
    """Every task whose static options are adjusted or refused by the adapters in use, by name."""
    findings = []
    for name, task in sorted(tasks.items()):
        try:
            plan = planner.preview(Signature(name=name, options=task.options, metadata=task.metadata))
        except (StemError, ValueError, TypeError) as error:
            findings.append(Finding(name, (), f"{type(error).__name__}: {error}"))
            continue
        if plan.adjustments:
            findings.append(Finding(name, plan.adjustments))
    return findings


def _options(call: Signature[Any], plan: Plan) -> list[OptionPlan]:
    """The options that somebody set, those of the publish first."""
    adjusted = {each.option: each for each in plan.adjustments}
    found: dict[str, OptionPlan] = {}
    for name, value in [*_given(call.enqueue_options, NO_OPTIONS), *_given(call.options, TaskOptions())]:
        if name not in found:
            each = adjusted.pop(name, None)
            found[name] = (
                OptionPlan(name, value, each.effective, each.reason)
                if each
                else OptionPlan(name, value, value)
            )
    for each in adjusted.values():
        found[each.option] = OptionPlan(each.option, each.requested, each.effective, each.reason)
    return list(found.values())


def _given(options: TaskEnqueueOptions | TaskOptions | None, defaults: Any) -> list[tuple[str, Any]]:
    if options is None:
        return []
    names = [each.name for each in dataclasses.fields(options)]
    values = [(name, getattr(options, name), getattr(defaults, name)) for name in names]
    return [(name, value) for name, value, default in values if value is not UNSET and value != default]
