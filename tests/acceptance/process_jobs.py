"""Tasks that run in processes of their own and write on database connections there."""

from __future__ import annotations

import os

import psycopg

from stem_core import Stem, TaskContext

stem = Stem(os.environ.get("STEM_TEST_JOBS", "memory://"), namespace=os.environ.get("STEM_TEST_NAME", "jobs"))


@stem.task
async def note(word: str) -> str:
    return word


@stem.task(isolation="process")
def write(ctx: TaskContext, url: str, commit: bool) -> str:
    with psycopg.connect(url) as connection:
        handle = ctx.enqueue_sync(note.call("sync"), publish_connection=connection)
        if not commit:
            connection.rollback()
    return handle.id


@stem.task(isolation="process")
async def write_async(ctx: TaskContext, url: str, commit: bool) -> str:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        handle = await ctx.enqueue(note.call("async"), publish_connection=connection)
        if not commit:
            await connection.rollback()
    return handle.id


@stem.task(isolation="process")
def past_the_worker() -> str:
    return note.enqueue_sync("by itself").id
