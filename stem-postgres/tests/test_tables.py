"""Healthy tables: HOT updates, indexes that serve, plans that outlive empty tables; and what the doctor sees."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from stem_core.envelope import Ack, Message, Settlement
from stem_core.errors import ConfigurationError
from stem_core.ports.committer import Step
from stem_core.ports.specs import AdapterOptions
from stem_core.status import StatusQuery, StatusUpdate, TaskState
from stem_postgres import doctor, listing, messages, statuses
from stem_postgres.backend import PostgresBackend
from stem_postgres.broker import PostgresBroker
from stem_postgres.location import locate
from stem_postgres.plugin import POSTGRES_BROKER
from tests.servers import PostgresServer

from .conftest import with_query
from .load import opened


def schema_of(url: str) -> str:
    return locate(url).schema


def one(url: str, statement: str) -> tuple[int, ...]:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(statement.encode()).fetchone()
    assert row is not None
    return row


async def test_claims_renewals_and_results_are_hot_updates(
    own_server: PostgresServer, unique_name: str
) -> None:
    """On a server of its own: a snapshot of anybody's keeps old rows from making room, and that ends HOT."""
    url = with_query(own_server.url, schema=unique_name)
    async with opened(url, unique_name) as (broker, backend):
        committer = broker.join(backend)
        assert committer is not None
        steps = [
            Step(
                updates=(StatusUpdate(id=f"m{n}", state=TaskState.QUEUED, name="t", queue="q", ttl=3600),),
                publishes=(Message(id=f"m{n}", queue="q", sealed=b"x" * 300),),
            )
            for n in range(600)
        ]
        await committer.commit(steps)
        deliveries = await broker.receive(["q"], limit=600, lease=30, wait=1)
        assert all(await broker.extend([each.receipt for each in deliveries], 60))
        finished = [
            Step(
                settlement=Settlement(each.receipt, Ack()),
                updates=(
                    StatusUpdate(id=each.message.id, state=TaskState.SUCCEEDED, payload=b"null", ttl=3600),
                ),
            )
            for each in deliveries
        ]
        assert all(await committer.commit(finished))
    for table, expected, share in (("message", 1200, 0.6), ("status", 600, 0.95)):
        counts = f"""select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables
            where schemaname = '{unique_name}' and relname = '{table}'"""
        updated = hot = 0
        async with asyncio.timeout(20):
            while updated < expected:  # a backend process reports its counts when it ends
                updated, hot = one(own_server.url, counts)
                await asyncio.sleep(0.01)
        assert hot > share * updated, f"{table}: {hot} of {updated} updates were HOT"


async def test_an_idle_receive_asks_once_while_it_listens(
    broker: PostgresBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One statement for a worker's whole wait: not another one at its end, nor one in between."""
    await broker.receive(["q"], limit=1, lease=30, wait=0.05)
    async with asyncio.timeout(10):
        while not broker.listening:
            await asyncio.sleep(0.01)
    asked: list[str] = []
    run = broker.database.run

    async def counted(template: str, parameters: Mapping[str, Any] | None = None) -> list[Any]:
        asked.append(template)
        return await run(template, parameters)

    monkeypatch.setattr(broker.database, "run", counted)
    assert await broker.receive(["q"], limit=1, lease=30, wait=1.5) == []
    assert len(asked) == 1


async def test_no_index_holds_what_a_claim_changes(
    module_url: str, postgres_url: str, broker: PostgresBroker
) -> None:
    with psycopg.connect(postgres_url) as connection:
        rows = connection.execute(
            "select indexdef from pg_indexes where schemaname = %s and tablename = 'message'",
            [schema_of(module_url)],
        ).fetchall()
    definitions = [row[0] for row in rows]
    assert definitions
    assert not [
        each for each in definitions if "lease_until" in each or "token" in each or "deliveries" in each
    ]


async def test_plans_made_for_empty_tables_stay_good(
    module_url: str, postgres_url: str, unique_name: str
) -> None:
    """Prepared while nothing is there, used when a hundred thousand rows are: still by the key."""
    url = with_query(module_url, pool="1")
    broker = PostgresBroker(url, AdapterOptions(namespace=unique_name), POSTGRES_BROKER.capabilities)
    await broker.open()
    for _ in range(8):
        await broker.publish([Message(id="warm", queue="q", sealed=b"")])
        [warm] = await broker.receive(["q"], limit=1, lease=30, wait=1)
        assert all(await broker.extend([warm.receipt], 30))
        assert all(await broker.settle([Settlement(warm.receipt, Ack())]))
    schema = schema_of(module_url)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            f"""insert into "{schema}".message (namespace, queue, id, priority, due, once, sealed)
            select '{unique_name}', 'later', 'm' || n, 0, now() + interval '1 day', false, ''
            from generate_series(1, 50000) n""".encode()
        )
    await broker.publish([Message(id="x", queue="q", sealed=b"")])
    reads = f"select seq_scan, idx_scan from pg_stat_user_tables where schemaname = '{schema}' and relname = 'message'"
    before = one(postgres_url, reads)
    for n in range(5):
        await broker.publish([Message(id=f"x{n}", queue="q", sealed=b"")])
        [found] = await broker.receive(["q"], limit=1, lease=30, wait=1)
        assert all(await broker.settle([Settlement(found.receipt, Ack())]))
    await broker.close()
    after = one(postgres_url, reads)
    assert after[0] == before[0], "a whole table was read"
    assert after[1] > before[1]


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (StatusQuery(), "status_listed"),
        (StatusQuery(names=("t",)), "status_by_name"),
        (StatusQuery(states=(TaskState.FAILED,)), "status_attention"),
    ],
)
async def test_listing_walks_an_index(
    backend: PostgresBackend, query: StatusQuery, index: str, module_url: str, postgres_url: str
) -> None:
    rare = {"state": TaskState.FAILED, "name": "t"}
    common = {"state": TaskState.SUCCEEDED, "name": "other"}
    start = datetime(2030, 1, 1, tzinfo=UTC)
    await backend.record(
        [
            StatusUpdate(
                id=f"s{n}", enqueued_at=start + timedelta(seconds=n), **(common if n % 100 else rare)
            )
            for n in range(5000)
        ]
    )
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f'analyze "{schema_of(module_url)}".status'.encode())
    statement, parameters = listing.statement(backend.database.namespace, query)
    rows = await backend.database.run(f"explain {statement}", parameters)
    plan = "\n".join(row[0] for row in rows)
    assert index in plan, plan


async def test_claims_and_pruning_walk_an_index_of_a_hundred_thousand_rows(
    broker: PostgresBroker, module_url: str, postgres_url: str
) -> None:
    """None of it due, all of it in the way."""
    schema, namespace = schema_of(module_url), broker.database.namespace
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            f"""insert into "{schema}".message (namespace, queue, id, priority, state, due, once, sealed)
            select '{namespace}', 'q', 'p' || n, 0, n % 2 * 3, now() + interval '1 day', true, ''
            from generate_series(1, 100000) n""".encode()
        )
        connection.execute(
            f"""insert into "{schema}".status (namespace, id, state, rank, generation, attempt, enqueued_at,
                                              expires_at, prune_after)
            select '{namespace}', 'p' || n, 'queued', 0, 0, 0, now(), now() + interval '1 day', now() + interval '1 day'
            from generate_series(1, 100000) n""".encode()
        )
        connection.execute(f'analyze "{schema}".message, "{schema}".status'.encode())
    claim = {"namespace": namespace, "limit": 10, "lease": 30.0, **messages.claim_columns(["q"], 0)}
    for statement, parameters, index in (
        (messages.CLAIM, claim, "message_live"),
        (messages.PRUNE, {"lock": 1}, "message_remembered"),
        (statuses.PRUNE, None, "status_prune"),
    ):
        rows = await broker.database.run(f"explain {statement}", parameters)
        plan = "\n".join(row[0] for row in rows)
        assert index in plan, plan
        assert "Seq Scan" not in plan, plan


async def test_the_doctor_reports_and_warns(
    module_url: str, broker: PostgresBroker, postgres_url: str
) -> None:
    findings = {(each.section, each.key): each for each in await doctor.report(module_url)}
    assert findings["server", "version"].warning is None
    assert findings["schema", "migration"].warning is None
    assert findings["settings", "fsync"].value == "on"
    assert "rows" in findings["tables", "message"].value
    assert ("server", "oldest snapshot") in findings


async def test_the_doctor_names_missing_migrations(postgres_url: str, unique_name: str) -> None:
    findings = await doctor.report(with_query(postgres_url, schema=unique_name))
    [missing] = [each for each in findings if each.section == "schema" and each.key == "migration"]
    assert missing.warning is not None
    assert "0001_initial" in missing.warning


@pytest.mark.parametrize("password", ["s3/cret", "s3?cret", "s3%cret", "s3@x:y/cret"])
def test_a_password_that_is_not_escaped_is_not_shown(password: str) -> None:
    with pytest.raises(ConfigurationError, match="percent-encode") as caught:
        locate(f"postgresql://me:{password}@host/db")
    assert "s3" not in str(caught.value)
    assert "cret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_url_is_taken_apart() -> None:
    here = locate("postgres://u:p@h:1/db?schema=my&sslmode=prefer&pgbouncer=1&pool=3&migrate=0")
    assert (here.schema, here.pooled, here.size, here.migrate, here.listen) == ("my", True, 3, False, None)
    assert "sslmode=prefer" in here.conninfo
    assert "options" not in here.conninfo
    assert locate("postgres://h/db?pgbouncer=1&listen_url=postgres%3A%2F%2Fdirect%2Fdb").listen is not None
    assert (locate("postgres://h/db", 7).timeout, locate("postgres://h/db?connect_timeout=3", 7).timeout) == (
        7,
        3,
    )


@pytest.mark.parametrize("query", ["schema=", "pool=none", "pool=0", "pgbouncer=perhaps", "no_such_option=1"])
def test_a_wrong_option_is_named(query: str) -> None:
    with pytest.raises(ConfigurationError, match=query.partition("=")[0]):
        locate(f"postgresql://h/db?{query}")


async def test_adapters_say_which_server_they_talk_to(
    broker: PostgresBroker, backend: PostgresBackend, module_url: str
) -> None:
    with psycopg.connect(module_url.partition("?")[0]) as connection:
        number = connection.info.server_version  # 180001 is 18.1
    expected = f"postgresql {number // 10000}.{number % 10000}"
    assert broker.server_version == backend.server_version == expected
    assert PostgresBroker(module_url, AdapterOptions(), broker.capabilities).server_version is None
