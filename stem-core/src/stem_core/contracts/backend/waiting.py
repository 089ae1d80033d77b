"""Laws 15, 16, 19 and 22: waiting for a result, lost connections, closing, and what is durable."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest

from stem_core.contracts.backend.base import BackendBase
from stem_core.contracts.backend.lab import BackendLab, Desk
from stem_core.contracts.backend.shared import OPTIONAL
from stem_core.contracts.driver import unique
from stem_core.contracts.laws import LawBroken, broken, check
from stem_core.contracts.outage import Outage, given, recovers
from stem_core.contracts.strategies import same
from stem_core.errors import StemError
from stem_core.ports.backend import Backend, Outcome
from stem_core.status import PUBLISH_FAILED, StatusUpdate, TaskState, TaskStatus

__all__ = ["WaitingLaws"]

#: Seconds a wait is given for what comes at once.
PATIENCE = 60.0
#: Seconds given to a wait to begin; too few make the test easier, never wrong.
BEGIN = 0.05
TERMINAL = (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED)


class WaitingLaws(BackendBase):
    @pytest.mark.parametrize("state", TERMINAL)
    def test_law_22_what_is_over_is_answered_at_once(self, lab: BackendLab, state: TaskState) -> None:
        desk = lab.desk()
        id = unique("s")
        desk.record(StatusUpdate(id=id, state=state, payload=b"x", meta={"a": 1}))
        found = lab.driver.run(self.within(desk.backend.wait(id, PATIENCE)))
        check(found == desk.one(id) and found is not None, 22, f"wait gave {found}, fetch {desk.one(id)}")
        check(desk.wait(id, 0.0) == found, 22, "wait with timeout 0 did not give what is over")

    @pytest.mark.parametrize("state", TERMINAL)
    def test_law_22_wakes_for_another_clients_record(self, lab: BackendLab, state: TaskState) -> None:
        waiting, other = lab.desk(), lab.desk()
        id = unique("s")
        other.record(StatusUpdate(id=id, state=TaskState.QUEUED))

        async def work() -> TaskStatus | None:
            task = asyncio.ensure_future(waiting.backend.wait(id, PATIENCE))
            await asyncio.sleep(BEGIN)
            await other.backend.record([StatusUpdate(id=id, state=TaskState.RUNNING)])
            await asyncio.sleep(0)
            await other.backend.record([StatusUpdate(id=id, state=state, payload=b"x")])
            return await self.within(task)

        found = lab.driver.run(work())
        check(found is not None and found.state is state and found.payload == b"x", 22, f"wait gave {found}")

    def test_law_22_wakes_for_another_thread_or_loop(self, lab: BackendLab) -> None:
        """Many wait, each for its own; the ends come from elsewhere, in one batch."""
        keeper = lab.desk()
        ids = [unique("s") for _ in range(6)]
        keeper.record(*(StatusUpdate(id=id, state=TaskState.QUEUED) for id in ids))

        async def wait(backend: Backend, id: str) -> TaskStatus | None:
            return await self.within(backend.wait(id, PATIENCE))

        async def end(backend: Backend) -> TaskStatus | None:
            await asyncio.sleep(BEGIN)
            await backend.record([StatusUpdate(id=id, state=TaskState.SUCCEEDED, name=id) for id in ids])
            return None

        found = self.at_once(lab, *((lambda b, mine=id: wait(b, mine)) for id in ids), end)[:-1]
        check([status and status.name for status in found] == ids, 22, f"waits for {ids} gave {found}")

    def test_law_22_several_wait_for_one(self, lab: BackendLab) -> None:
        desk, other = lab.desk(), lab.desk()
        id = unique("s")

        async def work() -> list[TaskStatus | None]:
            tasks = [asyncio.ensure_future(desk.backend.wait(id, PATIENCE)) for _ in range(4)]
            await asyncio.sleep(BEGIN)
            tasks[0].cancel()
            await other.backend.record([StatusUpdate(id=id, state=TaskState.SUCCEEDED)])
            return list(await self.within(asyncio.gather(*tasks[1:])))

        found = lab.driver.run(work())
        check(all(status is not None for status in found), 22, f"one cancelled, three waiting: {found}")

    def test_law_22_a_timeout_is_none_and_loses_nothing(self, lab: BackendLab) -> None:
        desk = lab.desk()
        id = unique("s")
        for update in (
            None,
            StatusUpdate(id=id, state=TaskState.QUEUED),
            StatusUpdate(id=id, state=TaskState.RETRYING),
        ):
            if update is not None:
                desk.record(update)
            found = lab.driver.run(self.within(desk.backend.wait(id, 0.03)))
            check(found is None, 22, f"{update} is not the end and wait gave {found}")
        desk.record(StatusUpdate(id=id, state=TaskState.SUCCEEDED))
        check(
            lab.driver.run(self.within(desk.backend.wait(id, PATIENCE))) is not None,
            22,
            "a later result was lost",
        )

    def test_law_22_a_failed_publish_is_no_result(self, lab: BackendLab) -> None:
        desk = lab.desk()
        id = unique("s")
        desk.record(StatusUpdate(id=id, state=TaskState.FAILED, reason=PUBLISH_FAILED))
        found = lab.driver.run(self.within(desk.backend.wait(id, 0.03)))
        check(found is None, 22, f"wait took a failed publish for the end: {found}")

    def test_law_22_waiting_is_idle(self, lab: BackendLab) -> None:
        """A tight poll would burn this thread's time while nothing happens."""
        desk = lab.desk()
        desk.wait("never", 0.0)
        start, turns = time.thread_time(), lab.driver.turns()
        desk.wait("never", 0.4)
        used, turns = time.thread_time() - start, lab.driver.turns() - turns
        check(used < 0.2, 22, f"a wait of 0.4 s used {used:.2f} s of the processor")
        check(turns < 200, 22, f"a wait of 0.4 s turned its loop {turns} times")

    def test_law_15_a_lost_connection_is_an_error_and_ends(
        self, lab: BackendLab, outage: Outage | None
    ) -> None:
        outage = given(outage)
        desk = lab.desk()
        backend = desk.backend
        desk.record(StatusUpdate(id="before", state=TaskState.SUCCEEDED))
        calls = {
            "record": lambda: backend.record([StatusUpdate(id=unique("s"), state=TaskState.QUEUED)]),
            "fetch": lambda: backend.fetch(["before"]),
            "wait": lambda: backend.wait("before", 5.0),
            "wait for what is to come": lambda: backend.wait(unique("s"), 0.1),
            **self._optional(backend),
        }
        recovers(lab.driver, outage, calls, self.prompt + 10.0)
        check(desk.record(StatusUpdate(id="after", state=TaskState.SUCCEEDED)) == [True], 15,
              "a first update after an outage was refused")  # fmt: skip
        check(desk.one("after") is not None, 15, "what was recorded after an outage is not there")

    def _optional(self, backend: Backend) -> dict[str, Callable[[], Coroutine[Any, Any, Any]]]:
        """A call of each optional method that is declared."""
        declared = [methods for name, methods in OPTIONAL.items() if getattr(self.spec.capabilities, name)]
        return {name: partial(call, backend) for methods in declared for name, call in methods.items()}

    def test_law_19_durable_statuses_survive_every_client(self, lab: BackendLab) -> None:
        """The store is closed by everybody and opened again."""
        self.needs("durable")
        desk = lab.desk()
        before = self._stored(desk, write=True)
        lab.driver.run(desk.backend.close())
        after = self._stored(lab.desk(), write=False)
        check(same(after, before), 19, f"{before} before everybody closed, {after} after")

    def test_law_19_durable_statuses_survive_an_outage(self, lab: BackendLab, outage: Outage | None) -> None:
        self.needs("durable")
        outage = given(outage)
        before = self._stored(lab.desk(), write=True)
        with outage():
            pass
        after = self._stored(lab.desk(), write=False)
        check(same(after, before), 19, f"{before} before the store went down, {after} after")

    def _stored(self, desk: Desk, *, write: bool) -> list[object]:
        """A status, a group and a value, as they are read; written first where asked."""
        if write:
            desk.record(StatusUpdate(id="s", state=TaskState.SUCCEEDED, payload=b"\0kept", encoder="json"))
        found: list[object] = [desk.one("s")]
        if self.spec.capabilities.groups:
            if write:
                desk.group_create("g", ["a", "b"])
                desk.group_add("g", "a", Outcome(TaskState.SUCCEEDED, b"\0kept", "json"))
            group = desk.group_get("g")
            found.append(group and (group.members, dict(group.outcomes), group.completed_by))
        if self.spec.capabilities.state:
            if write:
                desk.state_write("k", b"\0kept", expect=0)
            read = desk.state_read("k")
            found.append((read.value, read.version))
        return found

    def test_law_16_close_is_idempotent_and_final(self, lab: BackendLab) -> None:
        desk, other = lab.desk(), lab.desk()
        other.record(StatusUpdate(id="x", state=TaskState.QUEUED))
        for number in range(3):
            try:
                lab.driver.run(desk.backend.close())
            except Exception as error:
                raise LawBroken(16, f"close number {number + 1} raised {error!r}") from error
        backend = desk.backend
        calls: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
            "record": lambda: backend.record([StatusUpdate(id="x", state=TaskState.SUCCEEDED)]),
            "fetch": lambda: backend.fetch(["x"]),
            "wait": lambda: backend.wait("x", 0.0),
            **self._optional(backend),
        }
        for name, call in calls.items():
            try:
                lab.driver.run(self.within(call()))
            except LawBroken:
                raise
            except StemError:
                continue
            except Exception as error:
                raise LawBroken(16, f"{name} after close raised {error!r}; it must be a StemError") from error
            broken(16, f"{name} after close answered")
        found = other.one("x")
        check(found is not None and found.state is TaskState.QUEUED, 16, "a record after close did something")

    def test_law_16_close_ends_a_wait(self, lab: BackendLab) -> None:
        """With an error or with nothing; it does not wait its time out."""
        desk = lab.desk()

        async def work() -> object:
            task = asyncio.ensure_future(desk.backend.wait("never", PATIENCE))
            await asyncio.sleep(BEGIN)
            try:
                await self.within(desk.backend.close())
            except LawBroken:
                task.cancel()  # or it would keep the next close as well
                raise
            return (await self.within(asyncio.gather(task, return_exceptions=True)))[0]

        answer = lab.driver.run(work())
        check(answer is None or isinstance(answer, StemError | asyncio.CancelledError), 16,
              f"close ended a wait with {answer!r}")  # fmt: skip
