"""One process of takers: asks for permits as fast as it can; prints how many it got, and when by the wall clock."""

from __future__ import annotations

import asyncio
import json
import sys
import time

from stem_core import Stem


async def main(broker: str, backend: str, namespace: str, key: str, seconds: float, takers: int) -> None:
    stem = Stem(broker, backend=backend, namespace=namespace)
    async with stem:
        if stem.backend is None:
            raise SystemExit("no backend")
        granted = 0
        began = time.time()

        async def take() -> None:
            nonlocal granted
            while time.time() < began + seconds:
                answer = await stem.backend.limit_take(key, 1, 50.0, 50)
                granted += answer.granted
                if not answer.granted:
                    await asyncio.sleep(min(answer.retry_after, 0.05))

        await asyncio.gather(*(take() for _ in range(takers)))
        print(json.dumps({"granted": granted, "began": began, "ended": time.time()}))


if __name__ == "__main__":
    broker, backend, namespace, key, seconds, takers = sys.argv[1:]
    asyncio.run(main(broker, backend, namespace, key, float(seconds), int(takers)))
