"""Any history of a backend, beside what it must hold: the state machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from stem_core.contracts.backend.lab import BackendLab, Desk
from stem_core.contracts.backend.model import GroupModel
from stem_core.contracts.laws import check
from stem_core.contracts.strategies import outcomes, same, updates
from stem_core.contracts.time import Span
from stem_core.ports.backend import Outcome
from stem_core.status import StatusUpdate, TaskState, TaskStatus, merge

__all__ = ["BackendMachine", "backend_machine"]

V = TypeVar("V")
who = st.integers(0, 1)
#: In units of the lab's short ttl, which is 1.
ttls = st.sampled_from((None, None, 1.0, 2.5))
task_ids = st.sampled_from(("t1", "t2", "t3", "ü'%_"))
group_ids = st.sampled_from(("g1", "g2"))
keys = st.sampled_from(("k", "k1", "K", "l%"))
MEMBERS = ("a", "b", "c")


@dataclass(slots=True)
class Kept(Generic[V]):
    """A value and when it expires; None is never."""

    value: V
    until: Span | None = None
    versions: set[int] = field(default_factory=set)


class BackendMachine(RuleBasedStateMachine):
    """One example. ``make`` opens a lab in a namespace of its own."""

    def __init__(self, make: Callable[[], BackendLab]) -> None:
        super().__init__()
        self.lab = make()
        self.unit = self.lab.pace.lease
        self.statuses: dict[str, Kept[TaskStatus]] = {}
        self.groups: dict[str, Kept[GroupModel]] = {}
        self.state: dict[str, Kept[tuple[bytes, int]]] = {}
        self.versions: set[tuple[str, int]] = set()
        self.desks: list[Desk] = []

    @initialize()
    def open(self) -> None:
        self.desks = [self.lab.desk(), self.lab.desk()]

    def _clean(self, table: dict[str, Kept[V]], key: str) -> bool:
        """Forget ``key`` if it expired; False when either could be, for now."""
        kept = table.get(key)
        if kept is None or kept.until is None:
            return True
        now = self.lab.driver.time.now()
        if now < kept.until.lo - self.lab.pace.early - (0.0 if self.lab.pace.exact else 0.1):
            return True
        if now >= kept.until.hi + self.lab.pace.slack:
            del table[key]
            return True
        return False

    def _all_clean(self, table: dict[str, Kept[V]]) -> bool:
        sure = [self._clean(table, key) for key in tuple(table)]
        return all(sure)

    def _until(self, ttl: float | None, when: Span) -> Span | None:
        return None if ttl is None else when.plus(ttl)

    @rule(batch=st.lists(updates(task_ids, ttls), min_size=1, max_size=4), by=who)
    def record(self, batch: list[StatusUpdate], by: int) -> None:
        scaled = [_scaled(update, self.unit) for update in batch]
        scaled = [update for update in scaled if self._clean(self.statuses, update.id)]
        answers = self.desks[by].record(*scaled)
        for update, answer in zip(scaled, answers, strict=True):
            kept = self.statuses.get(update.id)
            merged = merge(kept.value if kept else None, update)
            check(
                answer == (merged is not None), 20, f"{update} after {kept and kept.value} answered {answer}"
            )
            if merged is not None:
                self.statuses[update.id] = Kept(
                    merged, self._until(self._ttl(update.ttl), self.desks[by].when)
                )

    def _ttl(self, ttl: float | None) -> float | None:
        return ttl if self.lab.caps.ttl else None

    @rule(ids=st.lists(task_ids, max_size=4), by=who)
    def fetch(self, ids: list[str], by: int) -> None:
        ids = [id for id in ids if self._clean(self.statuses, id)]
        for id, found in zip(ids, self.desks[by].fetch(*ids), strict=True):
            kept = self.statuses.get(id)
            law = 23 if (found is None) != (kept is None) else 21
            check(
                same(found, kept and kept.value), law, f"{id!r} reads {found}, recorded {kept and kept.value}"
            )

    @rule(id=task_ids, by=who)
    def wait(self, id: str, by: int) -> None:
        if self._clean(self.statuses, id):
            kept = self.statuses.get(id)
            wanted = kept.value if kept is not None and kept.value.terminal else None
            found = self.desks[by].wait(id, 0.0)
            check(same(found, wanted), 22, f"wait for {id!r} gave {found}, recorded {kept and kept.value}")

    @precondition(lambda self: self.lab.caps.listing)
    @rule(
        states=st.lists(st.sampled_from(list(TaskState)), max_size=2, unique=True),
        limit=st.integers(1, 4),
        by=who,
    )
    def list_all(self, states: list[TaskState], limit: int, by: int) -> None:
        if self._all_clean(self.statuses):
            found = self.desks[by].listed(states=tuple(states), limit=limit)
            wanted = {k: v.value for k, v in self.statuses.items() if not states or v.value.state in states}
            check(
                same({s.id: s for s in found}, wanted) and len(found) == len(wanted),
                27,
                f"{states}: {found}, {wanted}",
            )

    @rule(seconds=st.sampled_from((0.2, 0.5, 1.1, 3.0)))
    def advance(self, seconds: float) -> None:
        self.lab.advance(seconds * self.unit if self.lab.pace.exact else min(seconds, 0.6) * self.unit)

    @rule(by=who)
    def restart(self, by: int) -> None:
        self.lab.driver.run(self.desks[by].backend.close())
        self.desks[by] = self.lab.desk()

    # groups

    @precondition(lambda self: self.lab.caps.groups)
    @rule(
        id=group_ids, size=st.integers(0, 3), calls=st.booleans(), ttl=st.sampled_from((1.0, 100.0)), by=who
    )
    def group_create(self, id: str, size: int, calls: bool, ttl: float, by: int) -> None:
        from stem_core.contracts.backend.groups import callback

        if self._clean(self.groups, id):
            desk = self.desks[by]
            created = desk.group_create(id, MEMBERS[:size], callback() if calls else (), ttl=ttl * self.unit)
            check(created == (id not in self.groups), 24, f"create of {id!r} answered {created}")
            if created:
                kept = Kept(
                    GroupModel(MEMBERS[:size], calls), self._until(self._ttl(ttl * self.unit), desk.when)
                )
                self.groups[id] = kept
                self._group_ttl[id] = ttl * self.unit

    @property
    def _group_ttl(self) -> dict[str, float]:
        found: dict[str, float] = self.__dict__.setdefault("group_ttls", {})
        return found

    @precondition(lambda self: self.lab.caps.groups)
    @rule(id=group_ids, member=st.sampled_from((*MEMBERS, "stranger")), outcome=outcomes, by=who)
    def group_add(self, id: str, member: str, outcome: Outcome, by: int) -> None:
        if self._clean(self.groups, id):
            desk = self.desks[by]
            answer = desk.group_add(id, member, outcome)
            kept = self.groups.get(id)
            if kept is None:
                check(not answer.complete, 24, f"an unknown group answered {answer}")
                return
            wanted = kept.value.add(member, outcome)
            check(
                answer.complete == wanted.complete,
                24,
                f"{member} with {outcome.state} answered {answer}, expected {wanted}",
            )
            if member in kept.value.members:
                kept.until = self._until(self._ttl(self._group_ttl[id]), desk.when)
            elif kept.until is not None:  # whether a stranger renews is nobody's business
                renewed = desk.when.plus(self._group_ttl[id])
                kept.until = Span(kept.until.lo, max(kept.until.hi, renewed.hi))

    @precondition(lambda self: self.lab.caps.groups)
    @rule(id=group_ids, reason=st.sampled_from(("cancelled", "deadline")), by=who)
    def group_close(self, id: str, reason: str, by: int) -> None:
        if self._clean(self.groups, id):
            answer = self.desks[by].group_close(id, reason)
            kept = self.groups.get(id)
            wanted = kept is not None and kept.value.close(reason).complete
            check(
                answer.complete == wanted,
                24,
                f"close({reason}) of {id!r} answered {answer}, expected {wanted}",
            )
            if kept is not None and kept.until is not None:  # so is whether a close renews
                renewed = self.desks[by].when.plus(self._group_ttl[id])
                kept.until = Span(kept.until.lo, max(kept.until.hi, renewed.hi))

    @precondition(lambda self: self.lab.caps.groups)
    @rule(id=group_ids, by=who)
    def group_get(self, id: str, by: int) -> None:
        if self._clean(self.groups, id):
            found, kept = self.desks[by].group_get(id), self.groups.get(id)
            if found is None or kept is None:
                check(found is None and kept is None, 24, f"group {id!r} reads {found}")
                return
            model = kept.value
            real: Any = (found.members, dict(found.outcomes), found.completed_by, found.closed)
            wanted = (model.members, model.outcomes, model.completed_by, model.closed)
            check(same(real, wanted), 24, f"group {id!r} reads {real}, expected {wanted}")

    # state

    @precondition(lambda self: self.lab.caps.state)
    @rule(key=keys, value=st.binary(max_size=3), good=st.booleans(), old=st.integers(0, 5), ttl=ttls, by=who)
    def state_write(self, key: str, value: bytes, good: bool, old: int, ttl: float | None, by: int) -> None:
        if not self._clean(self.state, key):
            return
        kept, desk = self.state.get(key), self.desks[by]
        current = kept.value[1] if kept else 0
        known = sorted(version for name, version in self.versions if name == key) or [0]
        expect = current if good else known[old % len(known)]
        seconds = None if ttl is None else ttl * self.unit
        version = desk.state_write(key, value, expect=expect, ttl=seconds)
        check((version is not None) == (expect == current), 25, f"write of {key!r} expecting {expect}, it is {current}: "
              f"{version}")  # fmt: skip
        if version is not None:
            check(
                version > 0 and (key, version) not in self.versions,
                25,
                f"version {version} of {key!r} came twice",
            )
            self.versions.add((key, version))
            self.state[key] = Kept((value, version), self._until(seconds, desk.when))

    @precondition(lambda self: self.lab.caps.state)
    @rule(key=keys, good=st.booleans(), by=who)
    def state_delete(self, key: str, good: bool, by: int) -> None:
        if self._clean(self.state, key):
            kept = self.state.get(key)
            expect = (kept.value[1] if kept else 0) if good else 10**9
            done = self.desks[by].state_delete(key, expect=expect)
            check(
                done == (good and kept is not None),
                25,
                f"delete of {key!r} expecting {expect} answered {done}",
            )
            if done:
                del self.state[key]

    @precondition(lambda self: self.lab.caps.state)
    @rule(prefix=st.sampled_from(("", "k", "l%", "K")), by=who)
    def state_scan(self, prefix: str, by: int) -> None:
        if self._all_clean(self.state):
            found = {entry.key: (entry.value, entry.version) for entry in self.desks[by].state_scan(prefix)}
            wanted = {key: kept.value for key, kept in self.state.items() if key.startswith(prefix)}
            check(found == wanted, 25, f"scan of {prefix!r} gave {found}, expected {wanted}")

    def teardown(self) -> None:
        self.lab.driver.close()


def _scaled(update: StatusUpdate, unit: float) -> StatusUpdate:
    if update.ttl is None:
        return update
    fields = {name: getattr(update, name) for name in StatusUpdate.__struct_fields__}
    return StatusUpdate(**{**fields, "ttl": update.ttl * unit})


def backend_machine(make: Callable[[], BackendLab]) -> type[RuleBasedStateMachine]:
    """What ``run_state_machine_as_test`` runs; each example makes a lab."""

    class Machine(BackendMachine):
        def __init__(self) -> None:
            super().__init__(make)

    return Machine
