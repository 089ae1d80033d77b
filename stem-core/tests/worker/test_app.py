"""StemApp, and encoders chosen for a worker or a canvas alone."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest

from stem_core import (
    Canvas,
    ConfigurationError,
    DecodeError,
    Stem,
    StemApp,
    TaskFailed,
    TaskPayloadEncoder,
    TaskPayloadEncoderRegistry,
    Worker,
)
from stem_core.names import RESULT_ENCODER_META


class Rot(TaskPayloadEncoder):
    """JSON, each byte moved on by one, so that nothing else can read it."""

    id = "rot"

    def __init__(self) -> None:
        self.encoded = self.decoded = 0

    def encode(self, value: Any) -> bytes:
        self.encoded += 1
        return bytes((each + 1) % 256 for each in json.dumps(value).encode())

    def decode(self, data: bytes) -> object:
        self.decoded += 1
        try:
            return json.loads(bytes((each - 1) % 256 for each in data))
        except ValueError as error:
            raise DecodeError(str(error)) from None


async def test_an_app_starts_at_its_first_enqueue_and_has_a_canvas() -> None:
    app = StemApp.in_memory()

    @app.task
    async def add(x: int, y: int = 0) -> int:
        return x + y

    assert await (await add.enqueue(1, 2)).result(timeout=5) == 3
    assert await (await app.canvas.chain([add.s(1), add.s(2)])).result(timeout=5) == 3
    assert app.worker.started
    await app.close()
    await app.close()


def test_an_app_works_without_a_loop() -> None:
    app = StemApp.in_memory()

    @app.task
    def double(x: int) -> int:
        return 2 * x

    assert double.enqueue_sync(4).result_sync(timeout=10) == 8
    app.close_sync()


async def test_an_app_starts_at_its_first_graph() -> None:
    app = StemApp.in_memory()

    @app.task
    async def double(x: int) -> int:
        return 2 * x

    assert await (await app.canvas.group([double.s(1), double.s(2)])).result(timeout=10) == [2, 4]
    await app.close()


def test_an_app_whose_loop_has_ended_starts_again() -> None:
    app = StemApp.in_memory()

    @app.task
    async def double(x: int) -> int:
        return 2 * x

    async def use() -> int:
        return await (await double.enqueue(2)).result(timeout=10)

    assert [asyncio.run(use()), asyncio.run(use())] == [4, 4]
    asyncio.run(app.close())


def test_without_a_loop_an_app_starts_at_its_first_batch_and_drains_when_it_is_closed() -> None:
    ends: list[str] = []
    app = StemApp.in_memory(worker={"on_shutdown": [lambda _: ends.append("shut down")]})
    begun = threading.Event()

    @app.task
    async def slow() -> None:
        begun.set()
        await asyncio.sleep(0.2)
        ends.append("slow")

    app.enqueue_many_sync([slow.call()])
    assert begun.wait(10)
    app.close_sync()
    app.close_sync()
    assert ends == ["slow", "shut down"]


async def test_an_app_can_be_used_again_after_its_block() -> None:
    app = StemApp.in_memory()

    @app.task
    async def echo(x: int) -> int:
        return x

    for _ in range(2):
        async with app:
            assert await (await echo.enqueue(7)).result(timeout=5) == 7


async def test_an_on_startup_function_may_enqueue() -> None:
    async def first(state: dict[str, Any]) -> None:
        state["handle"] = await app.enqueue("echo", [1])

    app = StemApp.in_memory(worker={"on_startup": [first]})

    @app.task(name="echo")
    async def echo(x: int) -> int:
        return x

    async with app:
        assert await app.worker.state["handle"].result(timeout=5) == 1


async def test_an_app_takes_a_registry_of_encoders() -> None:
    rot = Rot()
    registry = TaskPayloadEncoderRegistry(args_encoder=rot, result_encoder=rot)
    app = StemApp.in_memory(encoders=registry)

    @app.task
    async def echo(x: int) -> int:
        return x

    async with app:
        handle = await echo.enqueue(3)
        assert await handle.result(timeout=5) == 3
        status = await handle.status()
    assert status is not None
    assert status.meta[RESULT_ENCODER_META] == status.encoder == "rot"
    assert (rot.encoded, rot.decoded) == (2, 2)


async def test_a_worker_may_have_encoders_the_stem_has_not() -> None:
    stem = Stem("memory://")

    @stem.task
    async def echo(x: int) -> int:
        return x

    rot = Rot()
    async with stem, Worker(stem, encoders=TaskPayloadEncoderRegistry(result_encoder=rot)):
        handle = await echo.enqueue(3)
        with pytest.raises((ConfigurationError, DecodeError), match="rot"):
            await handle.result(timeout=5)
        status = await handle.status()
        assert status is not None
        assert (status.encoder, rot.decode(status.payload or b"")) == ("rot", 3)


async def test_a_canvas_may_have_encoders_of_its_own() -> None:
    stem = Stem("memory://")

    @stem.task
    async def echo(x: int) -> int:
        return x

    rot = Rot()
    async with stem, Worker(stem):
        canvas = Canvas(stem, encoders=TaskPayloadEncoderRegistry(args_encoder=rot, result_encoder=rot))
        handle = await canvas.group([echo.s(3)])
        assert await handle.result(timeout=5) == [3]
        (status,) = await stem.backend.fetch(handle.members)  # type: ignore[union-attr]
        assert status is not None
        assert status.encoder == "rot"
        assert rot.encoded == 2


async def test_a_result_no_encoder_can_carry_fails_the_task() -> None:
    app = StemApp.in_memory()

    @app.task
    async def odd() -> object:
        return object()

    async with app:
        with pytest.raises(TaskFailed, match=r"EncodeError: result: a value of type object cannot travel"):
            await (await odd.enqueue()).result(timeout=5)
