"""One adapter's use of a file: open and closed, and whole again after a fork."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from stem_core.builtin.sqlite.calls import Call
from stem_core.builtin.sqlite.database import Database, database_of, location_of
from stem_core.builtin.sqlite.unit import Unit
from stem_core.errors import AdapterError
from stem_core.ports.specs import AdapterOptions
from stem_core.url import mask

__all__ = ["Session"]

T = TypeVar("T")


class Session:
    """``ns`` is the number of the namespace; known once open."""

    def __init__(self, url: str, options: AdapterOptions, what: str) -> None:
        self.options = options
        self.ns = 0
        self._what = f"{what} {mask(url)!r}"
        self._location = location_of(url, options)
        self._database: Database | None = None
        self._key = self._location.key
        self._before_fork: list[Database] = []

    async def open(self) -> None:
        if self._database is None:
            self._attach()
            try:
                self.ns = await self.write(lambda unit: unit.namespace(self.options.namespace))
            except BaseException:
                await self.close()
                raise

    async def close(self) -> None:
        database, self._database = self._database, None
        if database is not None and self._key == self._location.key:
            await asyncio.to_thread(database.release)

    @property
    def database(self) -> Database:
        """This process's; after a fork the child opens its own."""
        if self._database is None:
            raise AdapterError(f"The {self._what} is not open; await its open() first")
        if self._key != self._location.key:
            # The parent's connections must be neither used nor closed here.
            self._before_fork.append(self._database)
            self._attach()
        return self._database

    def _attach(self) -> None:
        self._key = self._location.key
        self._database = database_of(self._location)
        self._database.acquire()

    def is_of(self, other: Session) -> bool:
        """Whether the other is of the same file and namespace, and open in the same way."""
        return self.database is other.database and self.ns == other.ns

    async def write(
        self,
        operation: Callable[[Unit], T],
        *,
        undo: Callable[[T], None] | None = None,
        durable: bool = True,
    ) -> T:
        """Run ``operation`` in a write transaction; it returns when that is committed."""
        call: Call[Unit] = Call(operation, undo, durable)
        self.database.write(call)
        result: T = await call.future
        return result

    async def read(self, operation: Callable[[Unit], T]) -> T:
        """Run ``operation`` on a reading connection."""
        call: Call[Unit] = Call(operation)
        self.database.read(call)
        result: T = await call.future
        return result

    def write_later(self, operation: Callable[[Unit], Any]) -> None:
        """Run ``operation`` in a write transaction and wait for nothing."""
        if self._database is not None:
            self.database.write(Call(operation, durable=False))
