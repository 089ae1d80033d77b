"""A broker in a JSON file.

The file of a namespace holds ``count`` (for receipts), ``queues[queue][id]`` and ``known[queue][id]``: until when the id of
a finished ``once`` message is remembered. A message is free from ``due`` on, or, while ``receipt`` is set, leased until it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import fcntl
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote, unquote, urlsplit

from stem_core.clock import instant
from stem_core.envelope import Ack, DeadLetter, Delivery, Message, Receipt, Release, Settlement
from stem_core.errors import AdapterError, ConfigurationError, UnsupportedCapability
from stem_core.ports import AdapterOptions, Backend, BrokerCapabilities, Committer, QueueStats, Step
from stem_core.url import mask

__all__ = ["ShelfBroker"]

#: Seconds between two looks at the file while a receive waits.
PAUSE = 0.02


class ShelfBroker:
    """``shelf:///absolute/folder``, safe for any number of processes on one host."""

    def __init__(self, url: str, options: AdapterOptions, capabilities: BrokerCapabilities) -> None:
        self.capabilities = capabilities
        self._url = url
        self._clock = options.clock
        self._once_ttl = options.once_ttl
        parts = urlsplit(url)
        if parts.netloc or not parts.path.startswith("/"):
            raise ConfigurationError(
                f"{mask(url)!r} is not a shelf: write an absolute folder after three slashes, shelf:///var/lib/shelf"
            )
        folder = Path(unquote(parts.path))
        self._file = folder / f"{quote(options.namespace, safe='')}.json"
        self._is_open = False
        self._turn = 0

    async def open(self) -> None:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise AdapterError(f"The shelf {self._url!r} cannot be made: {error}") from error
        self._is_open = True

    async def close(self) -> None:
        self._is_open = False

    @contextlib.contextmanager
    def _change(self) -> Iterator[dict[str, Any]]:
        """The state, locked; what is changed in it is kept if nothing is raised."""
        if not self._is_open:
            raise AdapterError(f"The shelf {self._url!r} is not open; await its open() first")
        try:
            with self._file.with_suffix(".lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                state = {"count": 0, "queues": {}, "known": {}}
                if self._file.exists():
                    state = json.loads(self._file.read_bytes())
                yield state
                draft = self._file.with_suffix(".new")
                draft.write_text(json.dumps(state))
                draft.replace(self._file)
        except OSError as error:
            raise AdapterError(f"The shelf {self._url!r} cannot be used: {error}") from error

    async def publish(self, messages: Sequence[Message]) -> Sequence[bool]:
        for message in messages:
            if message.priority:
                raise ValueError(
                    f"message {message.id!r} has priority {message.priority}; a shelf has level 0 only"
                )
            if message.route:
                self._refuse("routing")
        with self._change() as state:
            return [self._add(state, message, self._clock.time()) for message in messages]

    def _add(self, state: dict[str, Any], message: Message, now: float) -> bool:
        queue = state["queues"].setdefault(message.queue, {})
        known = state["known"].setdefault(message.queue, {})
        for id in [id for id, until in known.items() if until <= now]:
            del known[id]
        if message.id in queue or (message.once and message.id in known):
            return False
        due = now + message.delay
        if message.not_before is not None:
            due = max(due, message.not_before.timestamp())
        queue[message.id] = {
            "sealed": base64.b64encode(message.sealed).decode(),
            "once": message.once,
            "due": due,
            "attempt": 0,
            "deliveries": 0,
            "receipt": None,
        }
        return True

    async def receive(
        self, queues: Sequence[str], *, limit: int, lease: float, wait: float
    ) -> Sequence[Delivery]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        names = list(dict.fromkeys(queues))
        while True:
            with self._change() as state:
                found = self._claim(state, names, limit, lease)
            patience = deadline - loop.time()
            if found or patience <= 0:
                return found
            await asyncio.sleep(min(PAUSE, patience))

    def _claim(self, state: dict[str, Any], names: list[str], limit: int, lease: float) -> list[Delivery]:
        now = self._clock.time()
        found: list[Delivery] = []
        self._turn += 1
        first = self._turn % max(1, len(names))
        for name in names[first:] + names[:first]:
            for id, entry in state["queues"].get(name, {}).items():
                if len(found) == limit:
                    return found
                if entry["due"] <= now:
                    found.append(self._lease(state, name, id, entry, now + lease))
        return found

    def _lease(
        self, state: dict[str, Any], queue: str, id: str, entry: dict[str, Any], until: float
    ) -> Delivery:
        state["count"] += 1
        entry["receipt"] = json.dumps([queue, id, state["count"]])
        entry["due"] = until
        entry["deliveries"] += 1
        return Delivery(
            message=Message(id=id, queue=queue, sealed=base64.b64decode(entry["sealed"]), once=entry["once"]),
            receipt=entry["receipt"],
            lease_until=instant(until),
            attempt=entry["attempt"],
            deliveries=entry["deliveries"],
        )

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[bool]:
        with self._change() as state:
            return [self._settle(state, each) for each in settlements]

    def _settle(self, state: dict[str, Any], settlement: Settlement) -> bool:
        queue, id, entry = self._held(state, settlement.receipt)
        if entry is None:
            return False
        action, now = settlement.action, self._clock.time()
        entry["receipt"] = None
        if isinstance(action, Ack | DeadLetter):  # without dead_letters, a dead letter is forgotten
            self._forget(state, queue, id, now)
        elif isinstance(action, Release):
            entry["deliveries"] -= 1
            entry["due"] = now + action.delay
        else:
            entry["attempt"] += 1
            entry["deliveries"] = 0
            entry["due"] = now + action.delay
        return True

    async def extend(self, receipts: Sequence[Receipt], lease: float) -> Sequence[bool]:
        answers = []
        with self._change() as state:
            for receipt in receipts:
                _, _, entry = self._held(state, receipt)
                if entry is not None:
                    entry["due"] = self._clock.time() + lease
                answers.append(entry is not None)
        return answers

    def _held(self, state: dict[str, Any], receipt: Receipt) -> tuple[str, str, dict[str, Any] | None]:
        """The message whose current hand-out ``receipt`` is."""
        queue, id, _ = json.loads(receipt)
        entry = state["queues"].get(queue, {}).get(id)
        return queue, id, entry if entry is not None and entry["receipt"] == receipt else None

    def _forget(self, state: dict[str, Any], queue: str, id: str, now: float) -> None:
        entry = state["queues"][queue].pop(id)
        if entry["once"]:
            state["known"].setdefault(queue, {})[id] = now + self._once_ttl

    async def stats(self, queue: str) -> QueueStats:
        now = self._clock.time()
        with self._change() as state:
            entries = list(state["queues"].get(queue, {}).values())
        ready = [entry["due"] for entry in entries if entry["due"] <= now]
        leased = sum(entry["receipt"] is not None and entry["due"] > now for entry in entries)
        return QueueStats(
            ready=len(ready),
            scheduled=len(entries) - len(ready) - leased,
            leased=leased,
            oldest_ready_age=now - min(ready) if ready else None,
        )

    async def purge(self, queue: str) -> int:
        now = self._clock.time()
        with self._change() as state:
            entries = state["queues"].get(queue, {})
            gone = [id for id, each in entries.items() if each["receipt"] is None or each["due"] <= now]
            for id in gone:
                self._forget(state, queue, id, now)
        return len(gone)

    def join(self, backend: Backend) -> Committer | None:
        return None

    def _refuse(self, capability: str) -> NoReturn:
        raise UnsupportedCapability(
            f"The shelf broker does not declare {capability}; use an adapter that does (see 'stem plugins')"
        )

    async def dead_list(self, queue: str, **filters: Any) -> NoReturn:
        self._refuse("dead_letters")

    async def dead_replay(self, queue: str, **filters: Any) -> NoReturn:
        self._refuse("dead_letters")

    async def dead_purge(self, queue: str, **filters: Any) -> NoReturn:
        self._refuse("dead_letters")

    async def broadcast(self, channel: str, data: bytes) -> None:
        self._refuse("broadcast")

    async def subscribe(self, channels: Sequence[str]) -> AsyncIterator[tuple[str, bytes]]:
        self._refuse("broadcast")
        yield  # what makes it a generator

    async def withdraw(self, ids: Sequence[str]) -> Sequence[bool]:
        self._refuse("withdraw")

    async def commit_on(self, conn: Any, steps: Sequence[Step]) -> Sequence[bool]:
        self._refuse("transactional_publish")

    def commit_on_sync(self, conn: Any, steps: Sequence[Step]) -> Sequence[bool]:
        self._refuse("transactional_publish")
