"""An order and its mail in one transaction, with both processes killed again and again: orders = mails.

    python examples/order_service.py postgresql://localhost/app --orders 300

A service inserts orders and enqueues each one's mail on the same connection, rolls some back, and is killed at
random points; so is the worker that sends the mails. At the end every order has exactly one mail, and no mail
is without its order. Without a URL it starts a PostgreSQL of its own (from a checkout).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

from stem_core import Stem, Worker

SCHEMA = "order_service"
TABLES = f"""
drop schema if exists {SCHEMA} cascade;
create schema {SCHEMA};
create table {SCHEMA}.orders (id bigint generated always as identity primary key, customer text not null);
create table {SCHEMA}.mails (order_id bigint primary key, sent_at timestamptz not null default now());
"""
LEASE = 2.0  # a killed worker's mails are sent by the next one this much later

url = os.environ.get("ORDERS_URL", "")
stem = Stem(f"{url}{'&' if '?' in url else '?'}schema={SCHEMA}") if url else Stem("memory://")


@stem.task(name="orders.mail", queue="mail")
def send_mail(order_id: int) -> None:
    """Runs at least once, so its effect must be one: the mail's key is its order."""
    with psycopg.connect(url) as connection:
        connection.execute(
            f"insert into {SCHEMA}.mails (order_id) values (%s) on conflict do nothing".encode(), [order_id]
        )


def serve(orders: int) -> None:
    """Take orders until there are enough; one customer in five changes their mind."""
    with psycopg.connect(url) as connection:
        while count(connection, "orders") < orders:
            with contextlib.suppress(ChangedMind), connection.transaction():
                cursor = connection.execute(
                    f"insert into {SCHEMA}.orders (customer) values ('Ada') returning id".encode()
                )
                row = cursor.fetchone()
                assert row is not None
                send_mail.with_options(publish_connection=connection).enqueue_sync(row[0])
                if random.random() < 0.2:
                    raise ChangedMind


class ChangedMind(Exception):
    """Rolls an order back, and its mail with it."""


def count(connection: psycopg.Connection, table: str) -> int:
    cursor = connection.execute(f"select count(*) from {SCHEMA}.{table}".encode())
    found: int = (cursor.fetchone() or (0,))[0]
    connection.commit()
    return found


def run(orders: int) -> tuple[int, int, int]:
    """Kill and restart both until every order has its mail; (orders, mails, kills)."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(TABLES.encode())
        asyncio.run(migrate())
        parts = {"serve": start("serve", orders), "work": start("work", orders)}
        kills = 0
        try:
            while (taken := count(connection, "orders")) < orders or count(connection, "mails") < taken:
                time.sleep(random.uniform(0.2, 1.2))
                for name, process in parts.items():
                    finished = name == "serve" and process.poll() == 0
                    if not finished and kills < max(4, orders // 25) and random.random() < 0.7:
                        process.send_signal(signal.SIGKILL)
                        process.wait()
                        kills += 1
                    if not finished and process.poll() is not None:
                        parts[name] = start(name, orders)
        finally:
            for process in parts.values():
                process.kill()
                process.wait()
        strangers = connection.execute(
            f"select count(*) from {SCHEMA}.mails where order_id not in (select id from {SCHEMA}.orders)".encode()
        ).fetchone()
        assert strangers == (0,), f"{strangers} mails without an order"
        return count(connection, "orders"), count(connection, "mails"), kills


def start(part: str, orders: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, __file__, url, "--orders", str(orders), "--part", part]
    return subprocess.Popen(command, env={**os.environ, "ORDERS_URL": url})


async def migrate() -> None:
    async with stem:
        pass


async def work() -> None:
    await Worker(stem, queues=["mail"], concurrency=10, threads=4, lease=LEASE).run()


@contextlib.contextmanager
def server(given: str) -> Iterator[str]:
    """The URL given, or that of a PostgreSQL started for us."""
    if given:
        yield given
        return
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from tests.servers import PostgresServer

    with PostgresServer() as own:
        yield own.url


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url", nargs="?", default=url, help="postgresql://...")
    parser.add_argument("--orders", type=int, default=300)
    parser.add_argument("--part", choices=["serve", "work"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part == "serve":
        serve(given.orders)
    elif given.part == "work":
        asyncio.run(work())
    elif not url:  # once more, with the URL where the task's module reads it
        with server(given.url) as there:
            command = [sys.executable, __file__, "--orders", str(given.orders)]
            sys.exit(subprocess.call(command, env={**os.environ, "ORDERS_URL": there}))
    else:
        orders, mails, kills = run(given.orders)
        print(f"{orders} orders, {mails} mails, {kills} kills")
        sys.exit(orders != mails)


if __name__ == "__main__":
    main()
