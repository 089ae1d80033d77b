"""Taskiq: a Redis stream, which is its broker that acknowledges, and results on Redis."""

from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from benchmarks.peers.side import URL, serve, tick

broker = RedisStreamBroker(URL).with_result_backend(RedisAsyncResultBackend(URL, result_ex_time=3600))


@broker.task(task_name="noop")
async def noop(text: str) -> None:
    tick()


started = False


async def enqueue() -> None:
    global started
    if not started:
        await broker.startup()
        started = True
    await noop.kiq("x" * 100)


if __name__ == "__main__":
    serve(enqueue)
