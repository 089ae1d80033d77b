"""Dramatiq: one process with its eight threads; it keeps no results unless told to, and is not told to."""

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks.peers.side import URL, serve, tick

dramatiq.set_broker(RedisBroker(url=URL))


@dramatiq.actor
def noop(text: str) -> None:
    tick()


if __name__ == "__main__":
    serve(lambda: noop.send("x" * 100))
