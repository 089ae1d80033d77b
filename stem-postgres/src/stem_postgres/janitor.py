"""What nobody needs any more is removed in small batches, by one process at a time."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import random
from collections.abc import Sequence
from typing import Final

from stem_core.errors import StemError
from stem_postgres.connection import Database

__all__ = ["Janitor"]

_LOG = logging.getLogger("stem.postgres")
#: Seconds between looks: while there is something to remove, while there is not, and while one look is not enough.
_EVERY: Final = 60.0
_EVERY_WHEN_CLEAN: Final = 240.0
_EVERY_WHEN_BEHIND: Final = 2.0
_MOST_BATCHES: Final = 100


class Janitor:
    """Runs pruning statements about once a minute, seldomer where they find nothing, at once where they leave some.

    Each returns a row per row removed, and looks at the rows' state again under their locks, so that nothing is
    removed on what was true a moment ago.
    """

    def __init__(self, database: Database, statements: Sequence[str]) -> None:
        self._database = database
        self._statements = statements
        self._task: asyncio.Task[None] | None = None
        self._behind = False

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep_clean(), name="stem-postgres-janitor")

    async def close(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def clean(self) -> int:
        """Remove all that has expired (up to a limit); how many rows."""
        removed = 0
        self._behind = False
        for statement in self._statements:
            digest = hashlib.blake2b(f"{self._database.location.schema}\0{statement}".encode(), digest_size=8)
            lock = int.from_bytes(digest.digest(), "big", signed=True)
            for _ in range(_MOST_BATCHES):
                rows = await self._database.run(statement, {"lock": lock})
                removed += len(rows)
                if not rows:
                    break
            else:
                self._behind = True
        return removed

    async def _keep_clean(self) -> None:
        every = _EVERY
        while True:
            await asyncio.sleep(random.uniform(every / 2, every * 1.5))
            try:
                every = _EVERY if await self.clean() else _EVERY_WHEN_CLEAN
                if self._behind:
                    every = _EVERY_WHEN_BEHIND
            except StemError as error:
                every = _EVERY
                _LOG.warning("pruning failed, tried again in a minute: %s", error)
