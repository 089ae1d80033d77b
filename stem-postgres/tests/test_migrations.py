"""Migrations: once, whoever starts together; and a role that may only use the tables."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import psycopg
import pytest

from stem_core.envelope import Ack, Message, Settlement
from stem_core.errors import ConfigurationError
from stem_core.ports.specs import AdapterOptions
from stem_core.status import StatusUpdate, TaskState
from stem_postgres import migrate
from stem_postgres.plugin import POSTGRES_BACKEND, POSTGRES_BROKER

from .conftest import with_query

#: Imports once, then sixteen processes are born and start at one moment.
OPENS = """
import asyncio, os, sys
from stem_core.ports.specs import AdapterOptions
from stem_postgres.backend import PostgresBackend
from stem_postgres.plugin import POSTGRES_BACKEND, POSTGRES_BROKER
async def main():
    broker = POSTGRES_BROKER.open(sys.argv[1], AdapterOptions())
    backend = POSTGRES_BACKEND.open(sys.argv[1], AdapterOptions())
    await asyncio.gather(broker.open(), backend.open())
    assert broker.join(backend) is not None
    await broker.close()
    await backend.close()
wait, go = os.pipe()
children = []
for _ in range(16):
    child = os.fork()
    if not child:
        os.close(go)
        os.read(wait, 1)  # the end of the pipe: everyone at once
        asyncio.run(main())
        os._exit(0)
    children.append(child)
os.close(go)
sys.exit(sum(os.waitpid(child, 0)[1] != 0 for child in children))
"""


@pytest.fixture
def fresh_url(postgres_url: str, unique_name: str) -> Iterator[str]:
    yield with_query(postgres_url, schema=unique_name)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f'drop schema if exists "{unique_name}" cascade'.encode())


@pytest.fixture
def plain_role(postgres_url: str, unique_name: str) -> Iterator[str]:
    """A role that may create nothing."""
    role = f"{unique_name}_role"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"create role {role} login".encode())
        yield role
        connection.execute(f'drop schema if exists "{unique_name}" cascade'.encode())
        connection.execute(f"drop owned by {role}".encode())
        connection.execute(f"drop role {role}".encode())


def as_role(url: str, role: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{role}@{rest.rpartition('@')[2]}"


def test_sixteen_processes_that_start_together_migrate_once(
    fresh_url: str, postgres_url: str, unique_name: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", OPENS, fresh_url], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    with psycopg.connect(postgres_url) as connection:
        versions = connection.execute(f'select version from "{unique_name}".migration'.encode()).fetchall()
    assert sorted(versions) == [(each.version,) for each in migrate.migrations()]


async def test_migrating_twice_changes_nothing(fresh_url: str) -> None:
    assert "applied 0001_initial" in await migrate.migrate(fresh_url)
    assert await migrate.migrate(fresh_url) == "up to date"


async def test_the_script_does_what_opening_does(fresh_url: str, postgres_url: str) -> None:
    script = await migrate.migrate(fresh_url, sql_only=True)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(script.encode())
    assert await migrate.migrate(fresh_url) == "up to date"


async def test_a_role_without_ddl_works_on_a_migrated_schema(
    fresh_url: str, postgres_url: str, unique_name: str, plain_role: str
) -> None:
    await migrate.migrate(fresh_url)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        for grant in (
            f'grant usage on schema "{unique_name}" to {plain_role}',
            f'grant select, insert, update, delete on all tables in schema "{unique_name}" to {plain_role}',
            f'grant usage on all sequences in schema "{unique_name}" to {plain_role}',
        ):
            connection.execute(grant.encode())
    url = as_role(fresh_url, plain_role)
    broker, backend = (
        POSTGRES_BROKER.open(url, AdapterOptions()),
        POSTGRES_BACKEND.open(url, AdapterOptions()),
    )
    await broker.open()
    await backend.open()
    try:
        assert await broker.publish([Message(id="a", queue="q", sealed=b"x")]) == [True]
        [delivery] = await broker.receive(["q"], limit=1, lease=30, wait=1)
        assert await broker.settle([Settlement(delivery.receipt, Ack())]) == [True]
        assert await backend.record([StatusUpdate(id="a", state=TaskState.SUCCEEDED)]) == [True]
        assert await backend.state_write("k", b"v", expect=0, ttl=None) is not None
        assert await backend.group_create("g", ["a"], [], None, 60)
        assert (await backend.limit_take("l", 1, 1.0, 1)).granted
        await broker.broadcast("c", b"x")
    finally:
        await broker.close()
        await backend.close()


async def test_a_role_without_ddl_is_told_how_to_migrate(
    fresh_url: str, plain_role: str, unique_name: str
) -> None:
    broker = POSTGRES_BROKER.open(as_role(fresh_url, plain_role), AdapterOptions())
    with pytest.raises(ConfigurationError, match="stem migrate") as caught:
        await broker.open()
    assert unique_name in str(caught.value)
    assert plain_role in str(caught.value)  # which role it was is in the URL


async def test_a_schema_that_may_not_be_changed_is_left_alone(fresh_url: str) -> None:
    broker = POSTGRES_BROKER.open(with_query(fresh_url, migrate="0"), AdapterOptions())
    with pytest.raises(ConfigurationError, match="migrate=0"):
        await broker.open()
    assert "applied" in await migrate.migrate(fresh_url)


async def test_a_newer_schema_is_used(fresh_url: str, postgres_url: str, unique_name: str) -> None:
    await migrate.migrate(fresh_url)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            f"insert into \"{unique_name}\".migration values (9999, 'from_the_future')".encode()
        )
    broker = POSTGRES_BROKER.open(fresh_url, AdapterOptions())
    await broker.open()
    assert await broker.publish([Message(id="a", queue="q", sealed=b"x")]) == [True]
    await broker.close()
