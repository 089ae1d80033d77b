"""Celery: prefork, results on Redis; acknowledged late, as all others here that survive a killed worker."""

from celery import Celery

from benchmarks.peers.side import URL, serve, tick

app = Celery("peer", broker=URL, backend=URL)
app.conf.update(task_acks_late=True, worker_hijack_root_logger=False)


@app.task(name="noop")
def noop(text: str) -> None:
    tick()


if __name__ == "__main__":
    serve(lambda: noop.delay("x" * 100))
