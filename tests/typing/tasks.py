"""What type checkers must accept and refuse; checked, not run.

Each refused line carries the code both checkers must report; an unused one is an error itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, assert_type

from stem_core import Stem, TaskContext, TaskDefinition, TaskHandle, TaskOptions
from stem_core.signature import Signature
from stem_core.tasks import Task, TaskEnqueueBuilder

stem = Stem("memory://")


@dataclass
class Order:
    number: int


@stem.task
async def add(x: int, y: int = 2) -> int:
    return x + y


@stem.task(name="reports.generate", queue="reports", max_retries=3)
def report(ctx: TaskContext, order: Order, *, copies: int = 1) -> str:
    return f"{ctx.id} {order.number} {copies}"


@stem.task
async def fetch(ctx: TaskContext) -> bytes:
    return ctx.id.encode()


@stem.task
def show(value: object, width: int) -> str:
    return f"{value:>{width}}"


@stem.task
def anything(value: Any) -> str:
    return str(value)


order_placed = TaskDefinition("orders.placed", Order, str, options=TaskOptions(queue="orders"))


async def accepted() -> None:
    handle = await add.enqueue(1, y=2)
    assert_type(handle, TaskHandle[int])
    assert_type(await handle.result(timeout=10), int)
    assert_type(add.enqueue_sync(1).result_sync(timeout=1), int)
    assert_type(await add(1), int)

    assert_type(await report.enqueue(Order(1), copies=2), TaskHandle[str])
    assert_type(await report.enqueue(order=Order(1)), TaskHandle[str])
    assert_type(await fetch.enqueue(), TaskHandle[bytes])

    # A leading object or Any is an argument like any other.
    assert_type(await show.enqueue("a", width=3), TaskHandle[str])
    assert_type(await show.enqueue(value="a", width=3), TaskHandle[str])
    await anything.enqueue(1)
    await anything.enqueue(value=1)

    assert_type(add.call(1), Signature[int])
    assert_type(add.s(), Signature[int])
    assert_type(report.si(Order(1)), Signature[str])
    assert_type(await add.with_options(queue="critical", countdown=30).enqueue(1, 2), TaskHandle[int])
    assert_type(add.builder(1, 2).header("tenant", "acme").priority(5), TaskEnqueueBuilder[int])
    assert_type(await add.builder(1).enqueue_with(stem), TaskHandle[int])

    assert_type(await order_placed.enqueue(stem, Order(1)), TaskHandle[str])
    assert_type(await order_placed.enqueue_and_wait(stem, Order(1), timeout=3), str)
    assert_type(order_placed.to_signature(Order(1)), Signature[str])
    assert_type(stem.handle("some-id", result=int), TaskHandle[int])

    same: Task[[int, int], int] = add
    assert same is add


async def refused() -> None:
    await add.enqueue("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await add.enqueue()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await add.enqueue(1, z=2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await report.enqueue()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await report.enqueue(Order(1), 2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await show.enqueue("a")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await fetch.enqueue(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    add.si()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    add.with_options(colour="red")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    stem.task(colour="red")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await order_placed.enqueue(stem, "order")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    text: str = await (await add.enqueue(1)).result()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    assert text
