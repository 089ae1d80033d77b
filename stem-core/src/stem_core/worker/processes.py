"""Runs handlers in processes of their own."""

from __future__ import annotations

from typing import Any

from stem_core.worker import inputs
from stem_core.worker.run import Run
from stem_core.worker.settings import WorkerSettings

__all__ = ["ProcessExecutor"]


class ProcessExecutor:
    """The children of a worker."""

    def __init__(self, wiring: Any, settings: WorkerSettings, shared: Any) -> None:
        self._settings = settings

    async def run(self, run: Run, gathered: inputs.Gathered) -> tuple[bytes | None, str | None]:
        raise NotImplementedError

    async def close(self) -> None:
        return
