"""What only SQLite has: a file, other processes, one writer thread."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from stem_core.builtin import plugin
from stem_core.builtin.sqlite import schema
from stem_core.builtin.sqlite.unit import Unit
from stem_core.builtin.sqlite.watch import Watch
from stem_core.envelope import Ack, DeadLetter, Message, Release, Settlement
from stem_core.errors import AdapterError, ConfigurationError, PayloadTooLarge, PublishError
from stem_core.ports import AdapterOptions
from stem_core.status import StatusUpdate, TaskState

PROCESS = Path(__file__).with_name("sqlite_process.py")


def message(id: str, *, queue: str = "q", **more) -> Message:
    return Message(id=id, queue=queue, sealed=b"x", **more)


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(PROCESS), *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finished(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    return out


@pytest.fixture
def path(tmp_path: Path) -> str:
    return f"{tmp_path}/stem.db"


@pytest.fixture
def url(path: str) -> str:
    return f"sqlite:///{path}"


@pytest.fixture
async def pair(url):
    options = AdapterOptions()
    broker, backend = plugin.SQLITE_BROKER.open(url, options), plugin.SQLITE_BACKEND.open(url, options)
    await broker.open()
    await backend.open()
    yield broker, backend
    await broker.close()
    await backend.close()


async def test_eight_processes_each_message_to_exactly_one(url, pair):
    broker, _ = pair
    total = 400
    await broker.publish([message(f"m{n}") for n in range(total)])
    processes = [start("drain", url, str(total)) for _ in range(8)]
    lines = [line for process in processes for line in finished(process).splitlines()]
    assert sorted(lines) == sorted(f"m{n} 1" for n in range(total))


async def test_processes_publish_together_and_never_see_a_lock(url, pair):
    broker, _ = pair
    processes = [start("produce", url, name, "300") for name in "abcd"]
    for process in processes:
        finished(process)
    assert (await broker.stats("q")).ready == 1200


async def test_wakes_for_what_another_process_did(url, pair):
    broker, backend = pair
    process = start("finish", url, "a")
    assert process.stdout.readline() == "ready\n"
    feed = broker.subscribe(["c"])
    tasks = [
        asyncio.ensure_future(broker.receive(["q"], limit=1, lease=1, wait=60)),
        asyncio.ensure_future(backend.wait("a", 60)),
        asyncio.ensure_future(anext(feed)),
    ]
    await asyncio.sleep(0.1)
    process.stdin.write("go\n")
    process.stdin.flush()
    deliveries, status, broadcast = await asyncio.wait_for(asyncio.gather(*tasks), 30)
    assert (deliveries[0].message.id, status.payload, broadcast) == ("from afar", b"1", ("c", b"hello"))
    await feed.aclose()
    finished(process)


async def test_what_was_acknowledged_survives(url):
    for turn in range(3):
        options = AdapterOptions()
        broker = plugin.SQLITE_BROKER.open(url, options)
        await broker.open()
        assert (await broker.stats("q")).ready == turn
        await broker.publish([message(f"{turn}")])
        await broker.close()


async def test_one_fault_is_its_callers_alone(pair):
    """Group commit: of operations in one transaction one raises; the others are done, each once."""
    broker, backend = pair
    session = broker.session
    entered, go = threading.Event(), threading.Event()

    def hold(unit):
        entered.set()
        assert go.wait(30)

    def fault(unit):
        unit.execute("INSERT INTO namespaces (name) VALUES ('of the fault')")
        raise RuntimeError("mine")

    holding = asyncio.ensure_future(session.write(hold))
    await asyncio.to_thread(entered.wait, 30)
    calls = [
        broker.publish([message("a")]),
        session.write(fault),
        backend.state_write("k", b"", expect=0, ttl=None),
        session.write(lambda unit: unit.execute("SELECT no_such_column FROM messages")),
        broker.publish([message("b")]),
    ]
    tasks = [asyncio.ensure_future(call) for call in calls]
    await asyncio.sleep(0)
    go.set()
    await holding
    first, mine, version, broken, last = await asyncio.gather(*tasks, return_exceptions=True)
    assert (first, last) == ([True], [True])
    assert version == (await backend.state_read("k")).version
    assert isinstance(mine, RuntimeError)
    assert isinstance(broken, AdapterError)
    assert "no_such_column" in str(broken)
    assert (await broker.stats("q")).ready == 2
    names = await session.read(lambda unit: unit.rows("SELECT name FROM namespaces"))
    assert names == [("stem",)]


async def test_what_waits_while_one_is_written_is_one_transaction(pair):
    broker, _ = pair
    commits = []
    broker.session.database._writer._committed = commits.append
    entered, go = threading.Event(), threading.Event()

    def hold(_unit):
        entered.set()
        assert go.wait(30)

    holding = asyncio.ensure_future(broker.session.write(hold))
    await asyncio.to_thread(entered.wait, 30)
    tasks = [asyncio.ensure_future(broker.publish([message(f"{n}")])) for n in range(500)]
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(holding, *tasks)
    assert len(commits) == 1 + 2  # 256 operations at most in one
    assert (await broker.stats("q")).ready == 500


async def test_what_waits_for_no_disk_goes_first(pair):
    """A claim need not wait for the commit of what came before it."""
    broker, _ = pair
    begun, gate = threading.Event(), threading.Event()
    done: list[str] = []

    def block(unit):
        begun.set()
        assert gate.wait(30)

    session = broker.session
    blocked = asyncio.create_task(session.write(block))
    assert await asyncio.to_thread(begun.wait, 30)
    writes = [
        asyncio.create_task(session.write(lambda unit: done.append("durable"))),
        asyncio.create_task(session.write(lambda unit: done.append("claim"), durable=False)),
    ]
    await asyncio.sleep(0)  # both are submitted
    gate.set()
    await asyncio.gather(blocked, *writes)
    assert done == ["claim", "durable"]


def test_the_watch_sees_others_commits_and_not_its_own(path):
    ours, theirs = schema.connect(path, "NORMAL"), schema.connect(path, "NORMAL")
    news: list[Unit] = []
    watch = Watch(lambda: True, news.append)
    unit = Unit(ours, 0.0, {})
    watch.look(unit)  # the first look knows nothing to compare with
    for connection, expected in ((ours, 1), (theirs, 2), (ours, 2), (theirs, 3)):
        connection.execute("INSERT INTO broadcasts (ns, channel, data, at) VALUES (1, 'c', x'00', 0)")
        watch.look(unit)
        watch.look(unit)
        assert len(news) == expected
    watch.forget()
    watch.look(unit)
    assert len(news) == 4
    ours.close()
    theirs.close()


def test_nobody_looks_while_nobody_waits():
    awaited = False
    watch = Watch(lambda: awaited, lambda unit: None)
    assert watch.pause() is None
    awaited = True
    assert watch.pause() == 0.0


async def test_a_cancelled_receive_gives_back_what_it_claimed(pair):
    broker, _ = pair
    await broker.publish([message("a")])
    loop = asyncio.get_running_loop()
    claimed = asyncio.Event()
    committed = broker.session.database._writer._committed

    def cancel_after_commit(unit):
        committed(unit)
        loop.call_soon_threadsafe(receiving.cancel)  # before the answer arrives
        loop.call_soon_threadsafe(claimed.set)

    broker.session.database._writer._committed = cancel_after_commit
    receiving = asyncio.ensure_future(broker.receive(["q"], limit=1, lease=1e6, wait=60))
    await claimed.wait()
    broker.session.database._writer._committed = committed
    with pytest.raises(asyncio.CancelledError):
        await receiving
    (delivery,) = await broker.receive(["q"], limit=1, lease=1, wait=30)
    assert (delivery.deliveries, delivery.attempt) == (1, 0)


@pytest.mark.parametrize("sealed", ["text", b"", b"\xff\x00", 17, "x'\x00"])
async def test_a_strangers_row_is_delivered(pair, path, sealed):
    broker, _ = pair
    await broker.publish([message("ours")])
    with sqlite3.connect(path) as connection:
        connection.execute(
            "INSERT INTO messages (queue, id, sealed) SELECT queue, CAST(X'FF41' AS TEXT), ? FROM queues",
            (sealed,),
        )
    connection.close()
    ours, strange = await broker.receive(["q"], limit=9, lease=30, wait=5)
    assert strange.message.sealed == (sealed if isinstance(sealed, bytes) else str(sealed).encode())
    assert strange.message.id == "\ufffdA"
    assert await broker.settle([Settlement(strange.receipt, DeadLetter("signature-invalid"))]) == [True]
    assert [each.message.id for each in (await broker.dead_list("q")).items] == ["\ufffdA"]
    assert await broker.dead_purge("q", reason="signature-invalid") == 1
    assert await broker.settle([Settlement(ours.receipt, Ack())]) == [True]


async def test_a_foreign_lock_is_waited_for(pair, path):
    broker, backend = pair
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    publishing = asyncio.ensure_future(broker.publish([message("a")]))
    assert await backend.fetch(["a"]) == [None]  # reads do not wait
    assert not publishing.done()
    connection.execute("ROLLBACK")
    connection.close()
    assert await publishing == [True]


async def test_a_full_disk_refuses_and_it_works_again(pair):
    broker, _ = pair
    await broker.publish([message("a")])
    session = broker.session
    pages = await session.write(lambda unit: unit.value("PRAGMA page_count"))
    await session.write(lambda unit: unit.value(f"PRAGMA max_page_count = {pages}"))
    with pytest.raises(PublishError, match="full") as caught:
        await broker.publish([Message(id="big", queue="q", sealed=b"x" * 1_000_000)])
    assert caught.value.outcome == "refused"
    assert await broker.publish([message("b")]) == [True]  # on a new connection
    assert (await broker.stats("q")).ready == 2


async def test_too_large_is_refused_before_anything_is_stored(pair):
    broker, _ = pair
    limit = broker.capabilities.max_size
    with pytest.raises(PayloadTooLarge, match="reference"):
        await broker.publish([message("a"), Message(id="big", queue="q", sealed=bytes(limit + 1))])
    assert (await broker.stats("q")).ready == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
async def test_after_a_fork_the_child_opens_its_own(pair):
    broker, backend = pair
    await broker.publish([message("parent")])
    child = await asyncio.to_thread(_in_a_child, broker)
    assert child == 0
    assert await broker.publish([message("parent again")]) == [True]
    got = await broker.receive(["q"], limit=9, lease=1, wait=0)
    assert [each.message.id for each in got] == ["parent", "child", "parent again"]
    assert await backend.fetch(["x"]) == [None]


def _in_a_child(broker) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            answer = asyncio.new_event_loop().run_until_complete(broker.publish([message("child")]))
            os._exit(0 if answer == [True] else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def log_size(broker) -> int:
    return Path(f"{broker.session._location.path}-wal").stat().st_size


async def test_a_lease_renewed_writes_no_message_again(pair):
    broker, _ = pair
    await broker.publish([Message(id="a", queue="q", sealed=bytes(8_000_000))])
    (delivery,) = await broker.receive(["q"], limit=1, lease=30, wait=0)
    await broker.session.read(lambda unit: unit.rows("PRAGMA wal_checkpoint(TRUNCATE)"))
    assert log_size(broker) == 0
    for _ in range(20):
        assert await broker.extend([delivery.receipt], 30) == [True]
    await broker.settle([Settlement(delivery.receipt, Release())])
    assert log_size(broker) < 1_000_000


async def test_plans_use_the_indexes(pair, path):
    """Cost per task is constant: nothing that a claim, a settle or a record runs scans a table."""
    broker, backend = pair
    plans = []

    def traced(unit):
        unit.connection.set_trace_callback(plans.append)

    await broker.session.write(traced)
    committer = broker.join(backend)
    await broker.publish([message(f"{n}", once=True, delay=n % 2) for n in range(3)])
    deliveries = await broker.receive(["q", "other"], limit=2, lease=0.001, wait=0)
    await broker.settle([Settlement(each.receipt, Release(0.001)) for each in deliveries])
    await broker.receive(["q"], limit=2, lease=1, wait=1)
    await backend.record([StatusUpdate(id="a", state=TaskState.QUEUED, ttl=1)])
    await committer.commit([])
    connection = sqlite3.connect(path)
    for statement in {each for each in plans if each.startswith(("SELECT", "UPDATE", "DELETE"))}:
        for *_, detail in connection.execute(f"EXPLAIN QUERY PLAN {statement}"):
            assert not detail.startswith("SCAN") or "json_each" in detail or "remembered" in detail, (
                statement, detail,
            )  # fmt: skip
    connection.close()
    assert len(plans) > 30


# the file


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite:///:memory:", "memory://"),
        ("sqlite://", "names no file"),
        ("sqlite:///", "names no file"),
        ("sqlite://host/file.db", "sqlite:///relative.db"),
        ("sqlite:///x.db?synchronous=off", "synchronous=full"),
        ("sqlite:///x.db?sync=full", "synchronous=full"),
    ],
)
def test_a_bad_url_says_what_to_write(url, words):
    for spec in (plugin.SQLITE_BROKER, plugin.SQLITE_BACKEND):
        with pytest.raises(ConfigurationError, match=words):
            spec.open(url, AdapterOptions())


async def test_relative_and_absolute_and_normal(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for url in ("sqlite:///here.db", f"sqlite:///{tmp_path}/there.db?synchronous=normal"):
        broker = plugin.SQLITE_BROKER.open(url, AdapterOptions())
        await broker.open()
        await broker.publish([message("a")])
        await broker.close()
    assert (tmp_path / "here.db").exists()
    assert (tmp_path / "there.db").exists()


async def test_a_missing_folder_is_an_adapter_error(tmp_path):
    broker = plugin.SQLITE_BROKER.open(f"sqlite:///{tmp_path}/no/such.db", AdapterOptions())
    with pytest.raises(AdapterError, match=r"such\.db"):
        await broker.open()


async def test_files_of_others_and_of_newer_stems_are_refused(url, path):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE mine (x)")
    connection.commit()
    broker = plugin.SQLITE_BROKER.open(url, AdapterOptions())
    with pytest.raises(ConfigurationError, match="file of its own"):
        await broker.open()
    connection.execute(f"PRAGMA user_version = {schema.SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(ConfigurationError, match="upgrade"):
        await broker.open()
    await broker.close()


def test_every_table_and_column_is_documented():
    connection = sqlite3.connect(":memory:")
    connection.executescript(schema._DDL)
    tables = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
    )
    documented = schema.__doc__
    for (table,) in tables.fetchall():
        start = documented.index(f"\n{table} ")
        entry = documented[start : start + 1200]
        for _, column, *_ in connection.execute(f"PRAGMA table_info({table})"):
            assert column in entry, (table, column)
    connection.close()
