"""A real queue with a real worker, and a broker's hand in between.

Every message is published by hand, as a broker that understands the wire format could. ``real-1`` is another
task's waiting message: its status, its group and its lock are what no forgery may touch.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Self, TypeVar

import msgspec

from stem_core.envelope import DeadMessage, Envelope, Message
from stem_core.ports.signer import PayloadSigner, SignatureBlock
from stem_core.producer import Stem
from stem_core.publishing import queued_of
from stem_core.sealing import Sealed, open_sealed, pack, seal, unpack
from stem_core.worker import Worker

T = TypeVar("T")
_numbers = itertools.count(1)
QUEUES = ("default", "other")


def inner_of(envelope: Envelope) -> bytes:
    """The bytes a signature of ``envelope`` covers."""
    return unpack(seal(envelope, namespace="stem")).inner


def framed(blocks: Sequence[SignatureBlock], inner: bytes) -> bytes:
    """As ``pack``, for any number of blocks, however wrong."""
    out = b"STM\x01" + bytes([len(blocks)]) + len(inner).to_bytes(4, "big")
    for block in blocks:
        out += bytes([len(block.algorithm)]) + block.algorithm.encode()
        out += bytes([len(block.key_id)]) + block.key_id.encode()
        out += len(block.signature).to_bytes(2, "big") + block.signature
    return out + inner


async def until(ask: Callable[[], Awaitable[T]], enough: Callable[[T], bool]) -> T:
    """What ``ask`` answers once it is ``enough``; fails after ten seconds."""
    async with asyncio.timeout(10):
        while not enough(answer := await ask()):
            await asyncio.sleep(0.01)
    return answer


class Lab:
    """One Stem, one queue, one signer."""

    def __init__(self, signer: PayloadSigner, **stem: Any) -> None:
        self.signer = signer
        self.stem = Stem(f"memory://security-{next(_numbers)}", signer=signer, **stem)
        self.ran: list[str] = []

        @self.stem.task(name="pay")
        async def pay(amount: int) -> int:
            self.ran.append(f"pay {amount}")
            return amount

        @self.stem.task(name="refund")
        async def refund(amount: int) -> int:
            self.ran.append(f"refund {amount}")
            return amount

    async def __aenter__(self) -> Self:
        await self.stem.open()
        backend = self.stem.wiring.backend
        assert backend is not None
        self.backend = backend
        self.real = self.envelope(id="real-1", unique="lock-1", group="group-1")
        await backend.group_create("group-1", ["real-1", "member-2"], callback=(), deadline=None, ttl=3600.0)
        await backend.state_write("unique/lock-1", b"real-1", expect=0, ttl=3600.0)
        await backend.record([queued_of(self.real)])
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stem.close()

    def envelope(self, **fields: Any) -> Envelope:
        """What a producer says: pay 1, unless ``fields`` say otherwise."""
        usual: dict[str, Any] = {
            "id": "task-1",
            "name": "pay",
            "queue": "default",
            "args": b"[[1],{}]",
            "encoder": "json",
            "enqueued_at": datetime.now(UTC),
        }
        return Envelope(**{**usual, **fields})

    def sealed(self, envelope: Envelope | None = None, **given: Any) -> bytes:
        """As the honest producer seals."""
        return seal(envelope or self.envelope(), namespace="stem", signer=self.signer, **given)

    def parts(self, envelope: Envelope | None = None) -> Sealed:
        """The honest bytes, taken apart."""
        return unpack(self.sealed(envelope))

    def edited(self, **changes: Any) -> bytes:
        """The honest bytes with fields changed under the old signature."""
        before = self.envelope(not_before=None, expires=None, priority=3, max_retries=1)
        after = msgspec.structs.replace(before, **changes)
        return pack(self.parts(before).signatures, inner_of(after))

    async def deliver(
        self, sealed: bytes, *, id: str = "task-1", queue: str = "default", **message: Any
    ) -> None:
        """Put ``sealed`` on the queue and let a worker work until nothing is left."""
        await self.stem.broker.publish([Message(id=id, queue=queue, sealed=sealed, **message)])
        await self.work()

    async def work(self) -> None:
        """Let a worker work until nothing is left."""
        await self.worker().run(until_empty=True)

    def worker(self) -> Worker:
        """A worker of this queue."""
        return Worker(self.stem, queues=QUEUES, wait=0.02, unknown_task_grace=0)

    async def dead(self) -> list[DeadMessage]:
        """Everything put aside."""
        return [each for queue in QUEUES for each in (await self.stem.broker.dead_list(queue)).items]

    async def untouched(self) -> tuple[Any, ...]:
        """What belongs to the other task, to be compared before and after."""
        lock = await self.backend.state_read("unique/lock-1")
        return (
            await self.backend.fetch(["real-1", "member-2"]),
            await self.backend.group_get("group-1"),
            (lock.value, lock.version),
        )

    def opens(self, sealed: bytes) -> Envelope:
        """What a worker sees."""
        return open_sealed(sealed, namespace="stem", signer=self.signer)

    @staticmethod
    def at(seconds: float) -> datetime:
        """A moment from now."""
        return datetime.now(UTC) + timedelta(seconds=seconds)
