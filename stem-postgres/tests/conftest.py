"""A PostgreSQL schema of its own for each test module, and adapters in namespaces of their own."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from urllib.parse import parse_qsl, urlsplit

import psycopg
import pytest

from stem_core.ports.specs import AdapterOptions
from stem_postgres.backend import PostgresBackend
from stem_postgres.broker import PostgresBroker
from stem_postgres.plugin import POSTGRES_BACKEND, POSTGRES_BROKER
from tests.servers import PostgresServer


def with_query(url: str, **options: str) -> str:
    """``url`` with more query options."""
    pairs = [*parse_qsl(urlsplit(url).query), *options.items()]
    return url.partition("?")[0] + "?" + "&".join(f"{key}={value}" for key, value in pairs)


@pytest.fixture(scope="session")
def server_of_this_process() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
def own_server(server_of_this_process: PostgresServer) -> PostgresServer:
    """A running server that a test may kill and start: nobody else uses it meanwhile."""
    return server_of_this_process.start()


@pytest.fixture(scope="module")
def module_url(postgres_url: str) -> Iterator[str]:
    """A URL with a schema that is dropped when the module's tests are over."""
    schema = f"t{uuid.uuid4().hex[:12]}"
    yield with_query(postgres_url, schema=schema)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f'drop schema if exists "{schema}" cascade'.encode())


@pytest.fixture
def options(unique_name: str) -> AdapterOptions:
    return AdapterOptions(namespace=unique_name)


@pytest.fixture
async def broker(module_url: str, options: AdapterOptions) -> AsyncIterator[PostgresBroker]:
    made = POSTGRES_BROKER.open(module_url, options)
    assert isinstance(made, PostgresBroker)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def backend(module_url: str, options: AdapterOptions) -> AsyncIterator[PostgresBackend]:
    made = POSTGRES_BACKEND.open(module_url, options)
    assert isinstance(made, PostgresBackend)
    await made.open()
    yield made
    await made.close()
