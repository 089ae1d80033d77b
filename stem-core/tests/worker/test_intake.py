"""What a worker does with messages that need no run, or must not have one."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from manual import stem_on

from stem_core import Stem, TaskContext, TaskFailed, TaskRevoked
from stem_core.clock import ManualClock
from stem_core.envelope import Envelope, Message
from stem_core.errors import ConfigurationError, SignatureInvalid
from stem_core.ports.signer import KeyScope, SignatureBlock
from stem_core.publishing import message_of
from stem_core.status import StatusUpdate, TaskState
from stem_core.worker import Worker, intake


async def dead_of(stem: Stem) -> list[tuple[str, str]]:
    items = (await stem.broker.dead_list("default")).items
    return [(each.message.id, each.reason) for each in items]


async def publish(stem: Stem, envelope: Envelope, **changes: Any) -> None:
    message = message_of(envelope, stem.wiring.seal(envelope), stem.broker.capabilities, once=False)
    await stem.broker.publish([msgspec.structs.replace(message, **changes)])


def envelope_of(name: str, **fields: Any) -> Envelope:
    defaults: dict[str, Any] = {
        "id": "t1",
        "name": name,
        "queue": "default",
        "args": b"[[],{}]",
        "encoder": "json",
        "enqueued_at": datetime.now(UTC),
    }
    return Envelope(**{**defaults, **fields})


async def test_bytes_that_are_no_message_are_put_aside_and_touch_no_status() -> None:
    stem = Stem("memory://")
    ran: list[str] = []

    @stem.task
    async def fine(ctx: TaskContext) -> None:
        ran.append(ctx.id)

    async with stem:
        await stem.broker.publish([Message(id="junk", queue="default", sealed=b"\x00garbage")])
        await stem.broker.publish([Message(id="empty", queue="default", sealed=b"")])
        handle = await fine.enqueue()
        worker = Worker(stem)
        await worker.run(until_empty=True)
        assert ran == [handle.id]
        assert sorted(await dead_of(stem)) == [("empty", "decode-failed"), ("junk", "decode-failed")]
        assert await stem.handle("junk").status() is None


@pytest.mark.parametrize("forged", [{"id": "other"}, {"queue": "elsewhere"}])
async def test_id_and_queue_must_be_what_was_signed(forged: dict[str, str]) -> None:
    stem = Stem("memory://")

    @stem.task(name="never")
    async def never() -> None:
        pytest.fail("it was run")

    async with stem:
        await publish(stem, envelope_of("never"), **forged)
        worker = Worker(stem, queues=["default", "elsewhere"])
        await worker.run(until_empty=True)
        assert worker.stats.signature_invalid == 1
        assert await stem.handle("t1").status() is None
        assert await stem.handle(forged.get("id", "t1")).status() is None


class WordSigner:
    """Signs with a word that everybody knows: enough to tell signed from unsigned."""

    def sign(
        self, purpose: str, namespace: str, payload: bytes, *, queue: str, task: str
    ) -> list[SignatureBlock]:
        return [SignatureBlock("word", "k1", b"abracadabra")]

    def verify(self, purpose: str, namespace: str, payload: bytes, signatures: Any) -> KeyScope:
        if [each.signature for each in signatures] != [b"abracadabra"]:
            raise SignatureInvalid("not the word")
        return KeyScope("k1")


async def test_a_forgery_of_a_real_id_touches_neither_status_nor_group() -> None:
    clock = ManualClock()
    stem = stem_on(clock, signer=WordSigner())
    forger = stem_on(clock, signer=False)
    forger.wiring.broker = stem.broker

    @stem.task(name="real")
    async def real() -> str:
        return "real"

    async with stem:
        handle = await real.enqueue()
        forged = message_of(
            envelope_of("real", id=handle.id, group="g"),
            forger.wiring.seal(envelope_of("real", id=handle.id, group="g")),
            stem.broker.capabilities,
            once=False,
        )
        await stem.broker.publish([msgspec.structs.replace(forged, queue="other")])
        worker = Worker(stem, queues=["default", "other"])
        await worker.run(until_empty=True)
        assert await handle.result(timeout=1) == "real"
        (dead,) = (await stem.broker.dead_list("other")).items
        assert (dead.reason, dead.message.id) == ("signature-invalid", handle.id)


async def test_an_expired_message_is_cancelled_and_not_run() -> None:
    clock = ManualClock()
    stem = stem_on(clock)

    @stem.task(name="never")
    async def never() -> None:
        pytest.fail("it was run")

    async with stem:
        expires = datetime.fromtimestamp(clock.time(), UTC) + timedelta(seconds=5)
        await publish(stem, envelope_of("never", expires=expires))
        clock.advance(5)
        await Worker(stem).run(until_empty=True)
        with pytest.raises(TaskRevoked, match="expired"):
            await stem.handle("t1").result(timeout=1)
        assert await dead_of(stem) == []


async def test_what_comes_much_too_early_is_given_back_and_a_little_is_waited_for() -> None:
    stem = Stem("memory://")
    started: list[float] = []

    @stem.task(name="later")
    async def later() -> None:
        started.append(time.time())

    async with stem:
        now = datetime.now(UTC)
        soon, far = now + timedelta(seconds=0.3), now + timedelta(hours=1)
        # A broker that knows no delay hands both out at once.
        await publish(stem, envelope_of("later", id="soon", not_before=soon), not_before=None)
        await publish(stem, envelope_of("later", id="far", not_before=far), not_before=None)
        async with Worker(stem) as worker:
            await stem.handle("soon").result(timeout=5)
            assert worker.stats.given_back == 1
        assert len(started) == 1
        assert started[0] >= soon.timestamp()
        stats = await stem.broker.stats("default")
        assert (stats.scheduled, stats.ready) == (1, 0)


async def test_an_unknown_task_waits_for_a_deploy_and_is_put_aside_after_the_grace() -> None:
    clock = ManualClock()
    stem = stem_on(clock)
    async with stem:
        await publish(stem, envelope_of("tomorrow"))
        async with Worker(stem, clock=clock, wait=0.01) as worker:
            given_back = 0
            for _ in range(200):
                clock.advance(0.5)
                while worker.stats.given_back == given_back and not worker.stats.dead_lettered:
                    if (await stem.broker.stats("default")).scheduled:
                        break
                    await asyncio.sleep(0.001)
                given_back = worker.stats.given_back
                if worker.stats.dead_lettered:
                    break
            assert await dead_of(stem) == [("t1", "unknown-task")]
        with pytest.raises(TaskFailed, match="no task 'tomorrow'"):
            await stem.handle("t1").result(timeout=1)
        assert 5 <= given_back <= 40


async def test_a_task_declared_within_the_grace_is_run() -> None:
    clock = ManualClock()
    stem = stem_on(clock)
    async with stem:
        await publish(stem, envelope_of("tomorrow"))
        async with Worker(stem, clock=clock, wait=0.01) as worker:
            while not worker.stats.given_back:
                await asyncio.sleep(0.001)

            @stem.task(name="tomorrow")
            async def tomorrow() -> str:
                return "it came"

            clock.advance(1)
            assert await stem.handle("t1").result(timeout=5) == "it came"


async def test_arguments_that_cannot_be_decoded_are_a_final_failure() -> None:
    stem = Stem("memory://")

    @stem.task(name="add", max_retries=5)
    async def add(x: int) -> int:
        return x

    async with stem:
        await publish(stem, envelope_of("add", id="not-json", args=b"{", max_retries=5))
        await publish(stem, envelope_of("add", id="not-int", args=b'[["x"],{}]', max_retries=5))
        await publish(stem, envelope_of("add", id="rot13", encoder="rot13", max_retries=5))
        await Worker(stem).run(until_empty=True)
        assert {reason for _, reason in await dead_of(stem)} == {"decode-failed"}
        assert len(await dead_of(stem)) == 3
        with pytest.raises(TaskFailed, match="rot13"):
            await stem.handle("rot13").result(timeout=1)


async def test_a_message_handed_out_too_often_is_put_aside_before_it_is_run() -> None:
    clock = ManualClock()
    stem = stem_on(clock)

    @stem.task(name="never")
    async def never() -> None:
        pytest.fail("it was run")

    async with stem:
        await publish(stem, envelope_of("never"))
        for _ in range(5):
            assert len(await stem.broker.receive(["default"], limit=1, lease=1, wait=0)) == 1
            clock.advance(2)
        await Worker(stem, max_deliveries=5).run(until_empty=True)
        assert await dead_of(stem) == [("t1", "crash-loop")]
        with pytest.raises(TaskFailed, match="handed out 5 times"):
            await stem.handle("t1").result(timeout=1)


@pytest.mark.parametrize(
    ("state", "wanted"), [(TaskState.SUCCEEDED, []), (TaskState.FAILED, [("t1", "why-not")])]
)
async def test_what_has_ended_in_its_generation_is_settled_without_a_run(
    state: TaskState, wanted: list[tuple[str, str]]
) -> None:
    stem = Stem("memory://")

    @stem.task(name="never")
    async def never() -> None:
        pytest.fail("it was run")

    async with stem:
        reason = "why-not" if state is TaskState.FAILED else None
        assert stem.backend is not None
        await stem.backend.record([StatusUpdate(id="t1", state=state, reason=reason)])
        await publish(stem, envelope_of("never"), once=True)
        worker = Worker(stem)
        await worker.run(until_empty=True)
        assert worker.stats.already_done == 1
        assert await dead_of(stem) == wanted


async def test_acks_late_false_acks_before_the_run() -> None:
    stem = Stem("memory://")
    gate, running = asyncio.Event(), asyncio.Event()

    @stem.task(acks_late=False)
    async def early() -> None:
        running.set()
        await gate.wait()
        raise ValueError("too late for a dead letter")

    async with stem, Worker(stem):
        handle = await early.enqueue()
        await asyncio.wait_for(running.wait(), 5)
        assert (await stem.broker.stats("default")).leased == 0
        gate.set()
        with pytest.raises(TaskFailed, match="too late"):
            await handle.result(timeout=5)
        assert await dead_of(stem) == []


async def test_results_that_cannot_be_stored_fail_the_task_for_good() -> None:
    stem = Stem("memory://", max_payload=2000)

    @stem.task(max_retries=3)
    async def large() -> str:
        return "x" * 3000

    @stem.task(max_retries=3)
    async def odd() -> object:
        return object()

    async with stem:
        handles = [await large.enqueue(), await odd.enqueue()]
        await Worker(stem).run(until_empty=True)
        with pytest.raises(TaskFailed, match="limit is 2000"):
            await handles[0].result(timeout=1)
        with pytest.raises(TaskFailed, match="EncodeError"):
            await handles[1].result(timeout=1)
        assert {reason for _, reason in await dead_of(stem)} == {"rejected"}


async def test_ignored_results_are_kept_only_where_something_needs_them() -> None:
    stem = Stem("memory://")

    @stem.task(ignore_result=True)
    async def ignored() -> int:
        return 5

    @stem.task
    async def plus(value: int) -> int:
        return value + 1

    async with stem:
        alone = await ignored.enqueue()
        linked = await ignored.with_options(link=plus.s()).enqueue()
        await Worker(stem).run(until_empty=True)
        status = await alone.status()
        assert status is not None
        assert (status.state, status.payload) == (TaskState.SUCCEEDED, None)
        assert await linked.result(timeout=1) is None
        assert stem.backend is not None
        (kept,) = await stem.backend.fetch([linked.id])
        assert kept is not None
        assert kept.payload == b"5"


async def test_reply_to_gets_how_it_ended() -> None:
    stem = Stem("memory://")
    replies: list[dict[str, Any]] = []

    @stem.task(name="stem.reply", queue="replies")
    async def reply(answer: dict[str, Any]) -> None:
        replies.append(answer)

    @stem.task
    async def good() -> int:
        return 7

    @stem.task
    async def bad() -> None:
        raise ValueError

    async with stem:
        first = await good.with_options(reply_to="replies").enqueue()
        second = await bad.with_options(reply_to="replies").enqueue()
        await Worker(stem, queues=["default", "replies"]).run(until_empty=True)
        by_id = {each["id"]: each for each in replies}
        assert by_id[first.id] == {"id": first.id, "state": "succeeded", "result": 7}
        assert by_id[second.id] == {"id": second.id, "state": "failed", "result": None}


async def test_a_missing_input_is_a_final_failure() -> None:
    stem = Stem("memory://")

    @stem.task(name="plus", max_retries=5)
    async def plus(value: int) -> int:
        return value + 1

    async with stem:
        from stem_core.envelope import Input

        await publish(stem, envelope_of("plus", input=Input(kind="one", task="nobody"), max_retries=5))
        await Worker(stem).run(until_empty=True)
        assert await dead_of(stem) == [("t1", "input-missing")]
        with pytest.raises(TaskFailed, match="nobody"):
            await stem.handle("t1").result(timeout=1)


async def test_only_the_newest_forgeries_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "KEPT_FORGERIES", 20)
    monkeypatch.setattr(intake, "_PURGE_EVERY", 10)
    stem = Stem("memory://")
    async with stem:
        for n in range(45):
            await publish(stem, envelope_of("x", id=f"real{n}"), id=f"forged{n}")
        await publish(stem, envelope_of("x", id="junk"), sealed=b"not a message")
        worker = Worker(stem, concurrency=5, prefetch=0)
        await worker.run(until_empty=True)
        assert worker.stats.signature_invalid == 45
        dead = await dead_of(stem)
        forgeries = [id for id, reason in dead if reason == "signature-invalid"]
        assert 20 <= len(forgeries) <= 30
        assert forgeries[-1] == "forged44"
        assert ("junk", "decode-failed") in dead


async def test_what_no_code_expects_of_bytes_stops_nothing() -> None:
    """A signer with a bug: the message that finds it is put aside, the next one runs."""

    class Buggy(WordSigner):
        def verify(self, purpose: str, namespace: str, payload: bytes, signatures: Any) -> KeyScope:
            if b"trap" in payload:
                raise ZeroDivisionError
            return super().verify(purpose, namespace, payload, signatures)

    stem = Stem("memory://", signer=Buggy())

    @stem.task
    async def fine() -> str:
        return "fine"

    async with stem:
        await publish(stem, envelope_of("trap"))
        handle = await fine.enqueue()
        await Worker(stem).run(until_empty=True)
        assert await handle.result(timeout=1) == "fine"
        assert await dead_of(stem) == [("t1", "decode-failed")]


class Unusual(BaseException):
    """Not an Exception."""


@pytest.mark.parametrize("error", [Unusual("odd"), SystemExit(3), asyncio.CancelledError(), StopIteration()])
@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_whatever_a_handler_raises_is_its_failure(error: BaseException, kind: str) -> None:
    stem = Stem("memory://")

    def bad() -> None:
        raise error

    async def bad_async() -> None:
        raise error

    task = stem.task(name="bad")(bad if kind == "thread" else bad_async)
    async with stem:
        handle = await task.enqueue()
        worker = Worker(stem)
        await worker.run(until_empty=True)
        with pytest.raises(TaskFailed):
            await handle.result(timeout=1)
        assert worker.stats.failed == 1


async def test_an_encoder_that_is_missing_is_told_at_the_start() -> None:
    stem = Stem("memory://")

    @stem.task(result_encoder="rot13")
    async def rotated() -> str:
        return "x"

    async with stem:
        with pytest.raises(ConfigurationError, match="rot13"):
            await Worker(stem).run(until_empty=True)
