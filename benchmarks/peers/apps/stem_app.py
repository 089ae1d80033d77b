"""Stem: its defaults; results kept a day."""

from benchmarks.peers.side import URL, serve, tick
from stem_core import Stem

stem = Stem(URL)


@stem.task
async def noop(text: str) -> None:
    tick()


if __name__ == "__main__":
    serve(lambda: noop.enqueue("x" * 100))
