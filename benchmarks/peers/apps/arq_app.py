"""arq: a hundred jobs at once instead of ten; results kept an hour, polled every half second, both as shipped."""

from arq import create_pool
from arq.connections import ArqRedis, RedisSettings

from benchmarks.peers.side import URL, serve, tick


async def noop(context: dict[str, object], text: str) -> None:
    tick()


class WorkerSettings:
    functions = (noop,)
    redis_settings = RedisSettings.from_dsn(URL)
    max_jobs = 100


pool: ArqRedis | None = None


async def enqueue() -> None:
    global pool
    if pool is None:
        pool = await create_pool(RedisSettings.from_dsn(URL))
    await pool.enqueue_job("noop", "x" * 100)


if __name__ == "__main__":
    serve(enqueue)
