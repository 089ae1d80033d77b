"""The worker: receives, opens, decodes, runs, records, settles."""

from stem_core.worker.stats import WorkerStats
from stem_core.worker.worker import Worker

__all__ = ["Worker", "WorkerStats"]
