"""Redis + result backend: a producer, a worker and a result, on Redis or Valkey.

    STEM_BROKER_URL=redis://localhost:6379/0 python examples/redis_quickstart.py

The worker runs in this process to keep the example in one file; in production it is
``stem worker redis_quickstart:stem --queue reports``, as many as you like.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass

from stem_core import Stem, Worker

# Broker and result backend: one URL serves as both, and a task's result, what follows it and its
# acknowledgement are then written in one step. `backend=` names another store.
stem = Stem(os.environ.get("STEM_BROKER_URL", "redis://localhost:6379/0"))


@dataclass
class ReportPayload:
    report_id: str
    pages: int


@stem.task(name="reports.generate", queue="reports", max_retries=3)
async def generate_report(payload: ReportPayload) -> str:
    return f"{payload.report_id}: {payload.pages} pages"


async def main() -> None:
    async with stem:
        handle = (
            await generate_report.builder(ReportPayload("monthly-2026-05", 12))
            .meta("requested_by", "finance")
            .enqueue_with(stem)
        )
        print(f"enqueued {handle}")

        async with Worker(stem, queues=["reports"], concurrency=10):
            print("result:", await handle.result(timeout=10))

        status = await handle.status()
        assert status is not None
        print(f"status: {status.state}, attempt {status.attempt}, meta {dict(status.meta)}")


if __name__ == "__main__":
    asyncio.run(main())
