"""Encoders where they are used: for an app, a task or one publish, through a real worker, types and all."""

from __future__ import annotations

import base64
import enum
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import attrs
import importlib_metadata
import msgspec
import pytest

from stem_core.errors import ConfigurationError, EncodeError
from stem_core.plugins import discover
from stem_core.producer import Stem
from stem_core.status import TaskState
from stem_core.worker import Worker

CHAINS = [
    "json",
    "cbor",
    "msgpack",
    "json+gzip",
    "cbor+zstd",
    "msgpack+lz4",
    "json+aes-gcm",
    "cbor+zstd+aes-gcm",
]


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Line:
    price: Decimal
    tags: frozenset[str]
    picture: bytes


class Order(msgspec.Struct):
    id: UUID
    placed: datetime
    lines: list[Line]
    colour: Colour = Colour.RED


@attrs.define
class Address:
    street: str
    since: timedelta


ORDER = Order(
    UUID("018f8e2c-7a3b-7c4d-8e5f-0123456789ab"),
    datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
    [Line(Decimal("10.50"), frozenset({"a", "b"}), b"\x00\xff"), Line(Decimal(0), frozenset(), b"")],
)
ADDRESS = Address("Straße 1", timedelta(days=3))


@pytest.fixture(autouse=True)
def encryption_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEM_ENCRYPTION_KEYS", "k1:" + base64.b64encode(b"K" * 32).decode())


async def run(stem: Stem) -> None:
    await Worker(stem, wait=0.02, unknown_task_grace=0).run(until_empty=True)


@pytest.mark.parametrize("chain", CHAINS)
async def test_annotated_arguments_and_results_come_back_as_annotated(chain: str) -> None:
    stem = Stem("memory://", args_encoder=chain, result_encoder=chain)
    seen: list[Any] = []

    @stem.task(name="buy")
    async def buy(
        order: Order,
        pair: tuple[int, str],
        ids: set[int],
        rates: dict[int, float],
        *,
        to: Address,
        big: int = 2**64 - 1,
    ) -> Order:
        seen.extend((order, pair, ids, rates, to, big))
        return order

    async with stem:
        handle = await buy.enqueue(ORDER, (1, "x"), {3, 1}, {5: 1.5}, to=ADDRESS)
        await run(stem)
        assert await handle.result(timeout=5) == ORDER
        status = await handle.status()
        assert status is not None
        assert status.encoder == status.meta["__stemResultEncoder"] == chain
    assert seen == [ORDER, (1, "x"), {3, 1}, {5: 1.5}, ADDRESS, 2**64 - 1]


@pytest.mark.parametrize("chain", CHAINS)
async def test_what_cannot_travel_is_an_error_at_the_call_with_its_path(chain: str) -> None:
    async with Stem("memory://", args_encoder=chain) as stem:
        with pytest.raises(EncodeError, match=r"^args\.order\.lines\[3\]\.price: nan is not a finite number"):
            await stem.enqueue("buy", args={"order": {"lines": [0, 0, 0, {"price": float("nan")}]}})
        assert (await stem.broker.stats("default")).ready == 0


async def test_a_task_and_a_publish_choose_for_themselves() -> None:
    stem = Stem("memory://", args_encoder="cbor")
    seen: list[str] = []

    @stem.task(name="own", result_encoder="msgpack+gzip")
    async def own(x: bytes) -> bytes:
        return x

    async with stem:
        handle = await own.enqueue(b"\xff")
        other = await own.with_options(serializer="msgpack", compression="zstd").enqueue(b"\x00")
        deliveries = await stem.broker.receive(["default"], limit=10, lease=0.05, wait=0)
        seen.extend(stem.wiring.unseal(each.message.sealed).encoder for each in deliveries)
        await run(stem)
        while (await stem.broker.stats("default")).leased:
            await run(stem)
        assert await handle.result(timeout=5) == b"\xff"
        assert await other.result(timeout=5) == b"\x00"
        status = await handle.status()
        assert status is not None
        assert status.encoder == "msgpack+gzip"
    assert sorted(seen) == ["cbor", "msgpack+zstd"]


async def test_an_encoder_that_is_not_installed_is_named_and_the_message_kept() -> None:
    url = "memory://codecs-missing"
    without = discover(environment={"STEM_DISABLE_PLUGINS": "codecs"})
    async with Stem(url, args_encoder="cbor") as producer, Stem(url, plugins=without) as worker:
        for stem in (producer, worker):

            @stem.task(name="t")
            async def t(x: int) -> int:
                return x

        handle = await producer.enqueue("t", args=[1])
        await run(worker)
        status = await handle.status()
        assert status is not None
        assert status.state is TaskState.FAILED
        [dead] = (await producer.broker.dead_list("default")).items
        assert dead.reason == "decode-failed"
        assert "'cbor'" in dead.detail
        await producer.broker.dead_replay("default")
        await run(producer)
        assert await handle.result(timeout=5) == 1


def test_an_unknown_encoder_says_what_to_install() -> None:
    installed = importlib_metadata.entry_points(group="stem")
    without = discover([each for each in installed if each.name != "codecs"], environment={})
    with pytest.raises(ConfigurationError, match=r"'zstd'.*Try: pip install stem-codecs\[zstd\]"):
        Stem("memory://", plugins=without, args_encoder="json+zstd")


async def test_a_result_that_cannot_travel_fails_the_task() -> None:
    stem = Stem("memory://", result_encoder="cbor")

    @stem.task(name="odd", max_retries=3)
    async def odd() -> Any:
        return {"a": [object()]}

    async with stem:
        handle = await odd.enqueue()
        await run(stem)
        status = await handle.status()
        assert status is not None
        assert status.state is TaskState.FAILED
        assert status.error is not None
        assert "result.a[0]: a value of type object cannot travel" in status.error.message
