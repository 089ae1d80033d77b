"""The test servers themselves: they answer, keep their data, and end when told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import redis

from tests.servers import PostgresServer, Server, ServerError, SharedServers, ValkeyServer


def test_redis_url_answers(redis_url: str, unique_name: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.ping()
        assert client.set(unique_name, b"1")
        assert client.delete(unique_name) == 1


def test_postgres_url_answers(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        row = connection.execute("select version(), current_setting('fsync')").fetchone()
    assert row is not None
    assert row[0].startswith("PostgreSQL")
    assert row[1] == "on"


def test_valkey_keeps_what_it_acknowledged_over_a_kill() -> None:
    with ValkeyServer(appendfsync="always") as server:
        port = server.port
        with redis.Redis.from_url(server.url) as client:
            client.set("kept", b"yes")
            server.kill()
            assert not server.running
            with pytest.raises(redis.ConnectionError):
                client.ping()
            server.start()
            assert client.get("kept") == b"yes"
            assert server.port == port
            server.restart()
            assert client.get("kept") == b"yes"


def test_postgres_keeps_what_it_committed_over_a_kill() -> None:
    with PostgresServer() as server:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("create table kept as select 1 as n")
            server.kill()
            with pytest.raises(psycopg.OperationalError):
                connection.execute("select 1")
        server.start()
        server.restart()
        with psycopg.connect(server.url) as connection:
            assert connection.execute("select n from kept").fetchone() == (1,)


def test_a_paused_server_can_be_resumed_and_stopped() -> None:
    with ValkeyServer() as server:
        server.pause()
        with redis.Redis.from_url(server.url, socket_timeout=0.2, retry=None) as client:
            with pytest.raises(redis.TimeoutError):
                client.ping()
        server.resume()
        with redis.Redis.from_url(server.url) as client:
            assert client.ping()
        server.pause()
        server.stop()
        assert not server.running


@pytest.mark.parametrize("kind", [ValkeyServer, PostgresServer])
def test_close_leaves_nothing(kind: type[Server]) -> None:
    with kind() as server:
        pid = server.pid
        assert server.directory.exists()
    assert not server.directory.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(ServerError, match="not running"):
        _ = server.pid


def test_a_server_that_cannot_start_says_why() -> None:
    with pytest.raises(ServerError, match="nonsense"):
        ValkeyServer(nonsense="1").__enter__()


def test_shared_servers_start_once_and_close(tmp_path: Path) -> None:
    directory = tmp_path / "shared"
    directory.mkdir()
    url = SharedServers(directory).url("redis")
    assert SharedServers(directory).url("redis") == url
    with redis.Redis.from_url(url, retry=None) as client:
        assert client.ping()
        SharedServers(directory).close()
        with pytest.raises(redis.ConnectionError):
            client.ping()
    assert not directory.exists()


@pytest.mark.parametrize("kind", ["redis", "postgres"])
def test_command_line_serves_until_interrupted(kind: str) -> None:
    command = [sys.executable, "-m", "tests.servers", kind]
    root = Path(__file__).parent.parent
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        try:
            if kind == "redis":
                with redis.Redis.from_url(url) as client:
                    assert client.ping()
            else:
                psycopg.connect(url).close()
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
