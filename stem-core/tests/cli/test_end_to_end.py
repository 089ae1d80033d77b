"""One application through the command line alone: enqueued, worked on, looked at, replayed."""

from __future__ import annotations

import asyncio
import signal
import time
from datetime import UTC, datetime

import psycopg
import pytest

from stem_core import TaskEnqueueOptions
from stem_core.cli.apps import load
from stem_core.worker import Worker

from .conftest import Shop


@pytest.fixture(params=["sqlite", "redis", "postgres"])
def anywhere(
    shop: Shop, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, unique_name: str
) -> Shop:
    """The same application on each adapter."""
    if request.param != "sqlite":
        monkeypatch.setenv("SHOP_URL", request.getfixturevalue(f"{request.param}_url"))
        monkeypatch.setenv("SHOP_NAME", unique_name)
    return shop


def test_a_tasks_life(anywhere: Shop) -> None:
    shop = anywhere
    id = shop("enqueue", "shop:stem", "add", "--args", "[40]", "--meta", "by=me", "--json").json["id"]
    (row,) = shop("queues", "default", "--app", "shop:stem", "--json").json
    assert (row["queue"], row["ready"], row["leased"], row["dead"]) == ("default", 1, 0, 0)
    assert row["oldest_ready_age"] >= 0
    assert shop("tasks", "show", id, "--app", "shop:stem", "--json").json["state"] == "queued"
    shop.work()
    found = shop("tasks", "show", id, "--app", "shop:stem", "--json").json
    assert (found["state"], found["result"], found["name"]) == ("succeeded", 40, "add")
    assert found["meta"]["by"] == "me"
    assert "succeeded" in shop("tasks", "show", id, "--app", "shop:stem").out


def test_a_dead_letters_life(anywhere: Shop) -> None:
    shop = anywhere
    ids = [
        shop("enqueue", "shop:stem", "fail", "--args", '{"why": "no reason"}').out.strip() for _ in range(3)
    ]
    shop.work()
    app = ("--app", "shop:stem", "--queue", "mail")
    listed = shop("dlq", "list", *app, "--json").json
    assert [each["id"] for each in listed["items"]] == ids
    assert {each["reason"] for each in listed["items"]} == {"max-retries-exhausted"}
    shown = shop("dlq", "show", ids[0], *app, "--json").json
    assert (shown["task"], shown["kwargs"], shown["args"]) == ("fail", {"why": "no reason"}, [])
    assert "ValueError: no reason" in shown["detail"]
    assert ids[1] in shop("dlq", "list", *app, "--limit", "2").out

    dry = shop("dlq", "replay", *app, "--id", ids[0], "--dry-run", "--json").json
    assert dry["replayed"] == [{"id": ids[0], "generation": 1}]
    assert len(shop("dlq", "list", *app, "--json").json["items"]) == 3
    done = shop("dlq", "replay", *app, "--id", ids[0], "--id", "nobody", "--json")
    assert (done.status, done.json["replayed"], done.json["missing"]) == (1, dry["replayed"], ["nobody"])
    status = shop("tasks", "show", ids[0], "--app", "shop:stem", "--json").json
    assert (status["state"], status["generation"]) == ("queued", 1)
    shop.work()
    assert shop("tasks", "show", ids[0], "--app", "shop:stem", "--json").json["state"] == "failed"

    assert shop("dlq", "purge", *app, "--reason", "other", "--json").json["purged"] == 0
    assert shop("dlq", "purge", *app, "--all", "--keep", "1", "--dry-run", "--json").json["purged"] == 2
    assert shop("dlq", "purge", *app, "--all", "--keep", "1", "--json").json["purged"] == 2
    (left,) = shop("dlq", "list", *app, "--json").json["items"]
    assert (left["id"], left["generation"]) == (ids[0], 1)
    assert shop("dlq", "list", *app, "--before", "1h", "--json").json["items"] == []


async def dead_letter_that_expires() -> datetime:
    """Put one aside in this process, and say when it expires."""
    stem = load("shop:stem")
    async with stem:
        while not (page := await stem.dead_letters.list("mail")).items:
            # Until it fails before it expires, however slow this machine is.
            await stem.enqueue("fail", ["x"], enqueue_options=TaskEnqueueOptions(queue="mail", expires=1.0))
            await Worker(stem, queues="mail").run(until_empty=True)
        expires = stem.wiring.unseal(page.items[0].message.sealed).expires
        assert expires is not None
        return expires


def test_an_expired_dead_letter_is_refused_and_listed(shop: Shop) -> None:
    expires = asyncio.run(dead_letter_that_expires())
    while datetime.now(UTC) <= expires:
        time.sleep(0.05)
    done = shop("dlq", "replay", "--app", "shop:stem", "--queue", "mail", "--all", "--json")
    assert (done.status, len(done.json["expired"]), done.json["replayed"]) == (1, 1, [])
    assert "has expired" in shop("dlq", "replay", "--app", "shop:stem", "--queue", "mail", "--all").err
    assert shop("queues", "mail", "--app", "shop:stem", "--json").json[0]["dead"] == 1


def test_a_revoked_task_is_cancelled(shop: Shop) -> None:
    id = shop("enqueue", "shop:stem", "add", "--args", "[1]", "--delay", "1h").out.strip()
    assert shop("tasks", "revoke", id, "--app", "shop:stem", "--json").json == {
        "id": id,
        "cancelled": True,
        "state": "cancelled",
    }
    late = shop("enqueue", "shop:stem", "add", "--args", "[1]").out.strip()
    shop.work()
    done = shop("tasks", "revoke", late, "--app", "shop:stem")
    assert (done.status, "had succeeded before" in done.out) == (1, True)


def test_a_result_is_waited_for(shop: Shop) -> None:
    worker = shop.spawn("worker", "shop:stem", "--on-startup", "shop:fill", "--log-format=json")
    try:
        done = shop("enqueue", "shop:stem", "pool", "--wait", "30", "--json")
        assert done.json["result"] == "a pool"
    finally:
        worker.terminate()
        _, err = worker.communicate(timeout=40)
    assert worker.returncode == 0, err


ROUTED = """
from stem_core import Stem
stem = Stem("sqlite:///shop.db", routing={"routes": [{"task": "mail.*", "queue": "letters"}], "queues": {"urgent": {}}})

@stem.task(name="mail.send")
async def send() -> None: ...

@stem.task(name="add", queue="sums")
async def add() -> None: ...
"""


def test_queues_are_those_that_somebody_is_known_to_use(shop: Shop) -> None:
    (shop.folder / "wishes.py").write_text(ROUTED)
    app = ("--app", "wishes:stem")
    assert shop("worker", "pause", "halted", "--reason", "a deploy", *app).status == 0
    worker = shop.spawn("worker", "wishes:stem", "--queue=listened", "--health-port=0")
    assert worker.stderr is not None
    try:
        for line in worker.stderr:  # it has said that it lives before it consumes
            if "consumes" in line:
                break
        rows = shop("queues", *app, "--json").json
        names = {"default", "letters", "urgent", "sums", "listened", "halted"}
        assert {row["queue"] for row in rows} == names
        assert {row["queue"] for row in rows if row["paused"]} == {"halted"}
    finally:
        worker.terminate()
        worker.communicate(timeout=40)
    shown = shop("queues", *app)
    assert {line.split()[0] for line in shown.out.splitlines()[1:]} == names - {"listened"}
    assert "name them" in shown.err
    assert [line.split()[0] for line in shown.out.splitlines() if line.endswith("paused: a deploy")] == [
        "halted"
    ]
    named = shop("queues", "nobodys", *app)
    assert (named.out.splitlines()[1].split()[0], named.err) == ("nobodys", "")


def test_queues_are_watched_until_interrupted(shop: Shop) -> None:
    watching = shop.spawn("queues", "--watch", "--every", "100ms", "--app", "shop:stem")
    assert watching.stdout is not None
    seen = [line.split() for line, _ in zip(watching.stdout, range(9), strict=False)]
    assert len([row for row in seen if row[:1] == ["queue"]]) >= 2
    watching.send_signal(signal.SIGINT)
    _, err = watching.communicate(timeout=30)
    assert (watching.returncode, "Traceback" in err) == (130, False), err


AWAY = """
from stem_core import Stem
stem = Stem("sqlite:///shop.db", outbox={url!r})
"""


def test_an_outbox_is_relayed(shop: Shop, postgres_url: str, unique_name: str) -> None:
    url = f"{postgres_url}{'&' if '?' in postgres_url else '?'}schema={unique_name}"
    (shop.folder / "away.py").write_text(AWAY.format(url=url))
    stem = load("away:stem")
    with psycopg.connect(postgres_url) as connection:
        connection.execute("select 1")
        for amount in (1, 2, 3):
            options = TaskEnqueueOptions(publish_connection=connection)
            stem.enqueue_sync("add", [amount], enqueue_options=options)
        assert shop("queues", "default", "--app", "away:stem", "--json").json[0]["ready"] == 0
        connection.commit()
    stem.close_sync()
    done = shop("relay", "away:stem", "--once", "--batch", "2")
    assert (done.status, done.err.splitlines()[-1]) == (0, "3 messages relayed")
    assert shop("queues", "default", "--app", "away:stem", "--json").json[0]["ready"] == 3
    assert "0 messages relayed" in shop("relay", "away:stem", "--once").err


def test_an_application_taken_for_a_queue_is_told_where_it_goes(shop: Shop) -> None:
    mistaken = shop("queues", "shop:stem")
    assert (mistaken.status, "--app shop:stem" in mistaken.err) == (2, True)


@pytest.mark.parametrize("words", [("queues",), ("dlq", "list"), ("tasks", "show", "x"), ("enqueue", "add")])
def test_without_an_application_the_environment_says(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    nothing = shop(*words)
    assert (nothing.status, "STEM_BROKER_URL" in nothing.err) == (2, True)
    monkeypatch.setenv("STEM_BROKER_URL", "sqlite:///shop.db")
    found = shop(*words)
    assert found.status == (1 if words[0] == "tasks" else 0), found.err
