"""Rotation drill: A, then A and B, then B, with messages waiting, delayed, leased and dead. None is refused inside
the window, every one after it."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any, Final

import pytest

from stem_codecs.aes_gcm import open_aes_gcm
from stem_core.canvas import Canvas
from stem_core.envelope import DeadLetter, Message, Settlement
from stem_core.errors import ConfigurationError
from stem_core.producer import Stem
from stem_core.worker import Worker
from stem_signing.plugin import ED25519
from tests.security import ring
from tests.security.lab import until

_numbers = itertools.count(1)
EACH: Final = 100
KINDS: Final = ("waiting", "delayed", "leased", "dead")
REFUSED: Final = {
    "hmac-sha256": "signature-invalid",
    "ed25519": "signature-invalid",
    "aes-gcm": "decode-failed",
}


class Drill:
    """One queue, seen by processes with different keys."""

    def __init__(self, secured_by: str) -> None:
        self.secured_by = secured_by
        self.url = f"memory://rotation-{next(_numbers)}"
        self.ran: Counter[str] = Counter()

    def stem(self, *names: str, active: str) -> Stem:
        """A process that has the keys called ``names``."""
        given: dict[str, Any]
        if self.secured_by == "aes-gcm":
            encoder = open_aes_gcm(ring.encryption(*names, active=active))
            given = {
                "signer": False,
                "encoders": [encoder],
                "args_encoder": "json+aes-gcm",
                "result_encoder": "json+aes-gcm",
            }
        else:
            given = {"signer": ring.signer(self.secured_by, *names, active=active)}
        stem = Stem(self.url, **given)

        @stem.task(name="work")
        async def work(kind: str) -> str:
            self.ran[kind] += 1
            return kind

        @stem.task(name="doomed")
        async def doomed(kind: str) -> str:
            self.ran[kind] += 1
            return kind

        return stem

    async def fill(self, stem: Stem) -> None:
        """``EACH`` messages of every kind, all made with the keys of ``stem``."""
        for _ in range(EACH):
            await stem.enqueue("doomed", args=["dead"])
            await stem.enqueue("work", args=["leased"])
        await hand_out(stem)
        for _ in range(EACH):
            await stem.enqueue("work", args=["waiting"])
        calls = [stem.tasks["work"].with_options(countdown=0.2).call("delayed") for _ in range(EACH)]
        await stem.enqueue_many(calls)


async def hand_out(stem: Stem) -> None:
    """As a worker that puts the doomed aside and dies with the others in its hands."""
    broker = stem.broker
    while True:
        deliveries = await broker.receive(["default"], limit=500, lease=0.3, wait=0)
        if not deliveries:
            return
        for each in deliveries:
            if stem.wiring.unseal(each.message.sealed).name == "doomed":
                await broker.settle([Settlement(each.receipt, DeadLetter("max-retries-exhausted", "drill"))])


async def everything_runs(drill: Drill, stem: Stem) -> None:
    """Every message of every kind runs in ``stem``, the dead ones after their replay."""
    await stem.broker.dead_replay("default")
    async with Worker(stem, wait=0.02, unknown_task_grace=0):
        await until(lambda: _count(drill), lambda count: count >= EACH * len(KINDS))
    assert drill.ran == dict.fromkeys(KINDS, EACH)
    assert (await stem.broker.dead_list("default")).items == ()


async def _count(drill: Drill) -> int:
    return drill.ran.total()


@pytest.mark.parametrize("secured_by", REFUSED)
@pytest.mark.parametrize("stage", ["added", "switched"])
async def test_nothing_is_refused_inside_the_window(secured_by: str, stage: str) -> None:
    drill = Drill(secured_by)
    async with drill.stem("a", active="a") as before:
        await drill.fill(before)
        async with drill.stem("a", "b", active="a" if stage == "added" else "b") as after:
            await everything_runs(drill, after)


@pytest.mark.parametrize("secured_by", REFUSED)
async def test_what_the_new_key_made_runs_after_the_old_one_is_gone(secured_by: str) -> None:
    drill = Drill(secured_by)
    async with drill.stem("a", "b", active="b") as switched:
        await drill.fill(switched)
        async with drill.stem("b", active="b") as after:
            await everything_runs(drill, after)


@pytest.mark.parametrize("secured_by", REFUSED)
async def test_everything_of_the_old_key_is_refused_after_the_window(secured_by: str) -> None:
    drill = Drill(secured_by)
    async with drill.stem("a", active="a") as before:
        await drill.fill(before)
        async with drill.stem("b", active="b") as after:
            await after.broker.dead_replay("default")
            async with Worker(after, wait=0.02, unknown_task_grace=0):
                stats = await until(
                    lambda: after.broker.stats("default"), lambda each: each.dead >= EACH * len(KINDS)
                )
            assert stats.dead == EACH * len(KINDS)
            assert drill.ran.total() == 0
            page = await after.broker.dead_list("default", limit=1000)
            assert {each.reason for each in page.items} == {REFUSED[secured_by]}


async def test_a_worker_with_public_keys_only_retries_finishes_and_links() -> None:
    """What it publishes was sealed by the producer; what it may not do is enqueue."""
    url = f"memory://verify-{next(_numbers)}"
    producer = Stem(url, signer=ring.signer("ed25519"))
    public = {"STEM_SIGNING_PUBLIC_KEYS": ring.public_entries("a")}
    worker = Stem(url, signer=ED25519.open(public))
    seen: list[str] = []
    for stem in (producer, worker):

        @stem.task(name="first", max_retries=1)
        async def first(x: int) -> int:
            seen.append(f"first {x}")
            if len(seen) == 1:
                raise RuntimeError("once")
            return x + 1

        @stem.task(name="then")
        async def then(x: int) -> int:
            seen.append(f"then {x}")
            return x

    async with producer, worker:
        call = producer.tasks["first"].with_options(link=[producer.tasks["then"].s()])
        handle = await call.enqueue(1)
        await Worker(worker, wait=0.02).run(until_empty=True)
        assert seen == ["first 1", "first 1", "then 2"]
        assert await handle.result(timeout=5) == 2
        with pytest.raises(ConfigurationError, match="STEM_SIGNING_PRIVATE_KEYS"):
            await worker.enqueue("first", args=[1])
        # A message it did not verify is nothing it runs either.
        await worker.broker.publish([Message(id="x", queue="default", sealed=b"STM\x01" + bytes(5))])
        await Worker(worker, wait=0.02).run(until_empty=True)
        assert len(seen) == 3


async def test_a_worker_with_public_keys_only_runs_chains_groups_and_chords() -> None:
    url = f"memory://verify-{next(_numbers)}"
    producer = Stem(url, signer=ring.signer("ed25519"))
    worker = Stem(url, signer=ED25519.open({"STEM_SIGNING_PUBLIC_KEYS": ring.public_entries("a")}))
    for stem in (producer, worker):

        @stem.task(name="double")
        async def double(x: int) -> int:
            return 2 * x

        @stem.task(name="total")
        async def total(values: list[int]) -> int:
            return sum(values)

    twice, sum_of = producer.tasks["double"], producer.tasks["total"]
    async with producer, worker, Worker(worker, wait=0.02):
        canvas = Canvas(producer)
        chain = await canvas.chain([twice.s(1), twice.s(), twice.s()])
        chord = await canvas.chord([twice.s(each) for each in range(5)], sum_of.s())
        assert await chain.result(timeout=20) == 8
        assert await chord.result(timeout=20) == 20
