"""``--health-port``: what it answers, and that it fails when consumption stalls."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
from processes import Running

from stem_core import ConfigurationError, Stem, TaskOptions
from stem_core.operations.collector import Collector, TaskCounts
from stem_core.operations.health import Address, HealthServer
from stem_core.operations.metrics import Family
from stem_core.operations.reports import Report, Reports
from stem_core.worker import Worker
from tests.servers import ValkeyServer

WORDS = ("jobs:stem", "--health-port=0", "--wait=0.5", "--lease=2")


class Reporter:
    def __init__(self) -> None:
        self.now = Report(True, True, "", [Family("up", "gauge", "Is it up?", {"up": 1.0})])

        self.asked: list[bool] = []

    async def report(self, *, metrics: bool = True) -> Report:
        self.asked.append(metrics)
        return self.now


async def exchange(address: Address, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(request)
    if not request.endswith(b"\r\n\r\n"):
        writer.write_eof()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


@pytest.mark.parametrize(
    ("request_line", "first"),
    [
        (b"GET /healthz HTTP/1.1", b"HTTP/1.1 200 OK"),
        (b"GET /healthz?verbose=1 HTTP/1.0", b"HTTP/1.1 200 OK"),
        (b"HEAD /readyz HTTP/1.1", b"HTTP/1.1 200 OK"),
        (b"GET /metrics HTTP/1.1", b"HTTP/1.1 200 OK"),
        (b"GET / HTTP/1.1", b"HTTP/1.1 404 Not Found"),
        (b"POST /healthz HTTP/1.1", b"HTTP/1.1 405 Method Not Allowed"),
        (b"SSH-2.0-OpenSSH_9.6", b"HTTP/1.1 400 Bad Request"),
        (b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 20_000, b"HTTP/1.1 400 Bad Request"),
    ],
)
async def test_requests_and_what_they_get(request_line: bytes, first: bytes) -> None:
    async with HealthServer(Address("127.0.0.1", 0), Reporter()) as server:
        answer = await exchange(server.address, request_line + b"\r\nHost: here\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(first)
    length = int(re.search(rb"Content-Length: (\d+)", head)[1])
    assert length > 0
    assert len(body) == (0 if request_line.startswith(b"HEAD") else length)


async def test_nobody_keeps_it_from_answering_others() -> None:
    async with HealthServer(Address("127.0.0.1", 0), Reporter()) as server:
        idle = [await asyncio.open_connection(*server.address) for _ in range(20)]
        assert await exchange(server.address, b"GET /healthz HTTP/1.1\r\n\r\n")
        for _, writer in idle:
            writer.close()
            await writer.wait_closed()


async def test_why_it_is_not_healthy_is_said() -> None:
    reporter = Reporter()
    reporter.now = Report(False, False, "it stalls")
    async with HealthServer(Address("127.0.0.1", 0), reporter) as server:
        for path in (b"/healthz", b"/readyz"):
            answer = await exchange(server.address, b"GET " + path + b" HTTP/1.1\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 503")
            assert answer.endswith(b"it stalls\n")


async def test_a_probe_does_not_wait_for_the_metrics() -> None:
    reporter = Reporter()
    async with HealthServer(Address("127.0.0.1", 0), reporter) as server:
        for path in (b"/healthz", b"/readyz", b"/metrics"):
            await exchange(server.address, b"GET " + path + b" HTTP/1.1\r\n\r\n")
    assert reporter.asked == [False, False, True]


async def test_a_probe_asks_no_broker() -> None:
    async with Stem("memory://") as stem:

        async def stats(queue: str) -> Any:
            pytest.fail(f"it counted {queue}")

        stem.broker.stats = stats  # type: ignore[method-assign]
        async with Worker(stem) as worker:
            reports = Reports(worker, Collector(worker, TaskCounts(())))
            assert await reports.report(metrics=False) == Report(True, True, "", [])


async def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=str(port)):
            async with HealthServer(Address("127.0.0.1", port), Reporter()):
                pass


def test_metrics_of_a_worker_at_work(folder: Path, stem: Stem) -> None:
    with Running(folder, *WORDS, "--log-format=json") as worker:
        worker.answers("/readyz", 200)
        stem.enqueue_sync("pid").result_sync(timeout=30)
        with pytest.raises(Exception, match="no reason"):
            stem.enqueue_sync("fail", options=TaskOptions(max_retries=1)).result_sync(timeout=30)
        label = 'task="fail",queue="default"'
        worker.counts(f'stem_tasks_total{{{label},outcome="failed"}}', 1)
        assert worker.metric(f'stem_tasks_total{{{label},outcome="retried"}}') == 1
        assert worker.metric('stem_dead_letters_total{queue="default",reason="max-retries-exhausted"}') == 1
        assert worker.metric('stem_task_duration_seconds_count{task="pid",queue="default"}') == 1
        assert worker.metric('stem_task_duration_seconds_bucket{task="pid",queue="default",le="+Inf"}') == 1
        assert worker.metric('stem_task_wait_seconds_count{queue="default"}') == 2
        assert worker.metric('stem_queue_messages{queue="default",state="dead"}') in {0, 1}
        worker.counts('stem_queue_messages{queue="default",state="dead"}', 1)
        assert worker.metric('stem_worker_events_total{event="received"}') >= 3
        stem.enqueue_sync("slow", [600])
        worker.counts("stem_worker_running", 1)
        assert worker.metric("stem_worker_held") >= 1
        _check_exposition(worker.ask("/metrics").body)
        worker.signal(signal.SIGTERM)
        worker.said("Stopping")  # two pending signals of one kind are one
        worker.signal(signal.SIGTERM)
        assert worker.ended() == 0
    entries = [json.loads(line) for line in worker.lines]
    (warning, *_) = [each for each in entries if each["logger"] == "stem.task"]
    assert (warning["message"], warning["task_name"], warning["attempt"]) == ("about to fail", "fail", 0)


def test_what_a_child_logs_is_logged_as_its_worker_does(folder: Path, stem: Stem) -> None:
    with Running(folder, *WORDS, "--log-format=json") as worker:
        handle = stem.enqueue_sync("child")
        pid = handle.result_sync(timeout=60)
        worker.said("in passing")
        worker.signal(signal.SIGTERM)
        assert worker.ended() == 0
    entries = [json.loads(line) for line in worker.lines]
    told = {each["message"]: each for each in entries if each["pid"] == pid}
    assert {(name, each["level"], each["logger"]) for name, each in told.items()} == {
        ("from the child", "warning", "stem.task"),
        ("in passing", "info", "shop"),
    }
    assert all(each["task_id"] == handle.id and each["task_name"] == "child" for each in told.values())


def _check_exposition(text: str) -> None:
    """Every sample belongs to a family that was announced, and every line is of the format."""
    announced = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    assert len(announced) == len(re.findall(r"^# HELP ", text, re.MULTILINE))
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        found = re.fullmatch(
            r'([a-z_]+)(?:\{(?:[a-z]+="(?:[^"\\]|\\.)*",?)+\})? (-?\d+(?:\.\d+)?(?:e-?\d+)?)', line
        )
        assert found, line
        name = re.sub("_(bucket|sum|count)$", "", found[1]) if found[1] not in announced else found[1]
        assert name in announced, line


def test_a_blocked_loop_fails_health_and_its_culprit_is_logged(folder: Path, stem: Stem) -> None:
    # Longer than a supervisor bears silence (5 s), shorter than the lease: it runs once.
    with Running(folder, "jobs:stem", "--health-port=0", "--lease=10", "--processes=2") as worker:
        worker.answers("/healthz", 200)
        stem.enqueue_sync("block", [6.5])
        body = worker.answers("/healthz", 503).body
        assert "process" in body
        worker.said("in block")
        worker.answers("/healthz", 200)


def test_a_broker_out_of_reach_fails_health(folder: Path, stem: Stem) -> None:
    (folder / "away.py").write_text(
        f"from stem_core import Stem\nstem = Stem('redis://127.0.0.1:{_free_port()}/0', backend=False)\n"
    )
    with Running(folder, "away:stem", "--health-port=0") as worker:
        worker.said("out of reach")
        assert worker.ask("/healthz").status == 503
        assert worker.ask("/readyz").status == 503
        assert worker.ask("/metrics").status == 200
        worker.signal(signal.SIGTERM)
        assert worker.ended() == 0


VALKEY_APP = """
import os
from stem_core import Stem
stem = Stem({url!r})

@stem.task(name="pid")
async def pid() -> int:
    return os.getpid()
"""


@pytest.mark.parametrize(("end", "words"), [("kill", ()), ("pause", ("--processes=2",))])
def test_a_broker_lost_while_it_works_fails_health_until_it_is_back(
    folder: Path, end: str, words: tuple[str, ...]
) -> None:
    with ValkeyServer() as server:
        (folder / "far.py").write_text(VALKEY_APP.format(url=server.url))
        producer = Stem(server.url)
        with Running(folder, "far:stem", "--health-port=0", "--wait=0.5", "--lease=2", *words) as worker:
            worker.answers("/readyz", 200)
            before = producer.enqueue_sync("pid").result_sync(timeout=30)

            server.kill() if end == "kill" else server.pause()
            assert "stalls" in worker.answers("/readyz", 503).body
            assert "stalls" in worker.answers("/healthz", 503).body
            worker.until(lambda: worker.metric("stem_worker_ready") == 0, "stem_worker_ready 0")

            server.start() if end == "kill" else server.resume()
            worker.answers("/readyz", 200)
            worker.answers("/healthz", 200)
            worker.until(lambda: worker.metric("stem_worker_ready") >= 1, "stem_worker_ready")
            # It is the same process that came back, not another one.
            after = {producer.enqueue_sync("pid").result_sync(timeout=30) for _ in range(4)}
            assert words or after == {before}
            assert worker.metric("stem_supervisor_restarts_total") == 0
            worker.signal(signal.SIGTERM)
            assert worker.ended() == 0
        producer.close_sync()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
