"""Procrastinate: ten jobs at once instead of one; it keeps finished jobs, and no return values."""

from procrastinate import App, PsycopgConnector

from benchmarks.peers.side import URL, serve, tick

app = App(connector=PsycopgConnector(conninfo=URL), import_paths=["benchmarks.peers.apps.procrastinate_app"])


@app.task(name="noop")
async def noop(text: str) -> None:
    tick()


opened = False


async def enqueue() -> None:
    global opened
    if not opened:
        await app.open_async()
        opened = True
    await noop.defer_async(text="x" * 100)


if __name__ == "__main__":
    serve(enqueue)
