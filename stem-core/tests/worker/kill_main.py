"""A worker process: ``python kill_main.py '<arguments of Worker as JSON>'``."""

from __future__ import annotations

import asyncio
import json
import sys

from kill_jobs import stem

from stem_core.worker import Worker


async def main() -> None:
    worker = Worker(stem, **json.loads(sys.argv[1]))
    await worker.run()


if __name__ == "__main__":
    asyncio.run(main())
