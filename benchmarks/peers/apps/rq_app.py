"""RQ: a fork for every job and results kept 500 seconds, as shipped."""

from redis import Redis
from rq import Queue

from benchmarks.peers.side import URL, serve, tick


def noop(text: str) -> None:
    tick()


if __name__ == "__main__":
    queue = Queue(connection=Redis.from_url(URL))
    serve(lambda: queue.enqueue("benchmarks.peers.apps.rq_app.noop", "x" * 100))
