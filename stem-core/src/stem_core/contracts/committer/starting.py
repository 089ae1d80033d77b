"""Laws 9, 16 and 32 for steps that are started: the same effects and answers, in order, told once.

A committer may decline to start anything at any time; what it declines is committed, as the core does it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime

import pytest

from stem_core.contracts.backend.lab import Desk
from stem_core.contracts.broker.lab import Client
from stem_core.contracts.committer.base import CommitLab, CommitterBase, done, running
from stem_core.contracts.driver import unique
from stem_core.contracts.laws import broken, check, expect
from stem_core.contracts.pace import LONG
from stem_core.envelope import Ack, Message, Settlement
from stem_core.errors import PayloadTooLarge, StemError
from stem_core.ports.committer import Starter, Step
from stem_core.status import StatusUpdate, TaskState

__all__ = ["StartLaws"]

#: Seconds after which what was started must have failed, and how much later it must have told so.
_TIMEOUT, _GRACE = 5.0, 2.0
Told = Sequence[bool] | Exception


class StartLaws(CommitterBase):
    def test_law_32_new_work_is_started_as_it_is_committed(self, lab: CommitLab) -> None:
        client, desk, starter = self._joined(lab)
        batches = [[_new_work(lab) for _ in range(count)] for count in (1, 1, 7, 1, 60)]
        for batch, told in zip(batches, _start(lab, starter, batches), strict=True):
            expect(told, [True] * len(batch), 32, "new work that was started answered")
        _check_stored(client, desk, [step for batch in batches for step in batch])

    def test_law_32_what_is_started_is_refused_as_it_is_committed(self, lab: CommitLab) -> None:
        client, desk, starter = self._joined(lab)
        known, over = lab.message("children", once=True), unique("over")
        client.publish(known)
        desk.record(done(over, payload=b"first"))
        used, live = lab.leased(client), lab.leased(client)
        expect(client.end(used), True, 5, "the first settlement of a lease answered")
        steps = [
            _new_work(lab),
            Step(settlement=Settlement(used.receipt, Ack()), updates=(running("stale"),)),
            Step(updates=(done(over, TaskState.FAILED),), publishes=(lab.message("refused"),)),
            Step(publishes=(known,), updates=(StatusUpdate(id=known.id, state=TaskState.QUEUED),)),
            Step(settlement=Settlement(live.receipt, Ack()), updates=(done(live.message.id),)),
        ]
        wanted = [True, False, False, True, True]
        expect(
            _start(lab, starter, [steps])[0], wanted, 32, "good and refused steps that were started answered"
        )
        check(desk.one("stale") is None, 32, "a stale receipt that was started wrote a status")
        client.nothing("refused", 32, "an end was refused in a step that was started")
        check(client.stats(lab.queue).leased == 0, 32, "a settlement that was started was not done")
        _check_stored(client, desk, steps[:1])
        check(len(client.drain("children")) == 1, 32, "a known once id that was started was added again")

    def test_law_32_what_is_declined_is_not_done(self, lab: CommitLab) -> None:
        client, desk, starter = self._joined(lab)
        leased = lab.leased(client)
        end = Step(settlement=Settlement(leased.receipt, Ack()), updates=(done(leased.message.id),))

        async def declined() -> list[Step]:
            told: list[list[Told]] = [[], []]
            steps = [_new_work(lab), end]
            begun = [
                starter.start([step], _TIMEOUT, here.append) for step, here in zip(steps, told, strict=True)
            ]
            await _until_told([here for here, one in zip(told, begun, strict=True) if one])
            await asyncio.sleep(0.05)
            return [step for step, one in zip(steps, begun, strict=True) if not one]

        for step in lab.driver.run(declined()):
            row = step.updates[0]
            check(
                desk.one(row.id) is None, 32, f"start declined a step, and wrote its {row.state} all the same"
            )

    def test_law_09_what_is_started_keeps_its_order(self, lab: CommitLab) -> None:
        if not self.broker.capabilities.fifo:
            pytest.skip("not declared: fifo")
        client, _, starter = self._joined(lab)
        batches = [[_new_work(lab) for _ in range(1 + n % 3)] for n in range(25)]
        _start(lab, starter, batches)
        came = [each.message.id for each in client.drain(lab.queue)]
        sent = [message.id for batch in batches for step in batch for message in step.publishes]
        expect(came, sent, 9, "batches started one after the other came in the order")

    def test_law_03_what_is_too_large_is_not_started(self, lab: CommitLab) -> None:
        if self.broker.capabilities.max_size is None:
            pytest.skip("not declared: max_size")
        client, _, starter = self._joined(lab)
        large = lab.message(sealed=bytes(self.broker.capabilities.max_size + 1))
        (told,) = _start(lab, starter, [[_new_work(lab), _new_work(lab, large)]])
        check(
            isinstance(told, PayloadTooLarge),
            3,
            f"a message over max_size was started, and answered {told!r}",
        )
        client.nothing(lab.queue, 3, "one of a batch was too large")

    def test_law_16_nothing_is_started_after_close(self, lab: CommitLab) -> None:
        client, desk, starter = self._joined(lab)
        other, witness, _ = lab.joined()
        lab.driver.run(client.broker.close())
        lab.driver.run(desk.backend.close())
        step = _new_work(lab)
        (told,) = _start(lab, starter, [[step]])
        check(isinstance(told, StemError), 16, f"steps started after close answered {told!r}")
        check(witness.one(step.updates[0].id) is None, 16, "steps started after close wrote a status")
        other.nothing(lab.queue, 16, "steps were started after close")

    def _joined(self, lab: CommitLab) -> tuple[Client, Desk, Starter]:
        client, desk, committer = lab.joined()
        if not isinstance(committer, Starter):
            pytest.skip("not declared: start")
        return client, desk, committer


def _new_work(lab: CommitLab, message: Message | None = None) -> Step:
    """What nearly everything that is started is: a message and its first status."""
    message = message or lab.message()
    at: datetime = lab.at(0.0)
    row = StatusUpdate(
        id=message.id, state=TaskState.QUEUED, name="n", queue=message.queue, enqueued_at=at, ttl=LONG
    )
    return Step(updates=(row,), publishes=(message,))


def _start(lab: CommitLab, starter: Starter, batches: Sequence[Sequence[Step]]) -> list[Told]:
    """Start each batch right after the one before; one that is declined waits for those, and is committed."""
    return lab.driver.run(_start_all(starter, batches))


async def _start_all(starter: Starter, batches: Sequence[Sequence[Step]]) -> list[Told]:
    told: list[list[Told]] = [[] for _ in batches]
    for n, (batch, here) in enumerate(zip(batches, told, strict=True)):
        if starter.start(batch, _TIMEOUT, here.append):
            check(not here, 32, f"start answered {here} before it returned")
            continue
        await _until_told(told[:n])
        check(not here, 32, f"start declined a batch, and answered {here}")
        try:
            here.append(await starter.commit(batch))
        except StemError as error:
            here.append(error)
    await _until_told(told)
    await asyncio.sleep(0.01)  # whoever tells twice does it now
    for here in told:
        check(len(here) == 1, 32, f"a batch that was started was told of {len(here)} times: {here}")
    return [list(answers) if not isinstance(answers, Exception) else answers for (answers,) in told]


async def _until_told(told: Sequence[Sequence[Told]]) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + _TIMEOUT + _GRACE
    while not all(told):
        if loop.time() > end:
            broken(
                32,
                f"{_TIMEOUT + _GRACE:g} s after a start with timeout={_TIMEOUT:g} nobody was told of its end",
            )
        await asyncio.sleep(0.001)


def _check_stored(client: Client, desk: Desk, steps: Sequence[Step]) -> None:
    """That each message of new work is there once, and its row as it was written."""
    sent = [step.publishes[0] for step in steps]
    came = [each.message for each in client.drain(sent[0].queue)]
    expect(sorted(came, key=_id), sorted(sent, key=_id), 32, "of the messages that were started came")
    for step, found in zip(steps, desk.fetch(*(each.id for each in sent)), strict=True):
        row = step.updates[0]
        check(found is not None and (found.state, found.name, found.queue) == (row.state, row.name, row.queue), 32,
              f"the row {row} that was started was read back as {found}")  # fmt: skip


def _id(message: Message) -> str:
    return message.id
