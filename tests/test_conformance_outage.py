"""``stem conformance --stop-command --start-command``: law 15 on a real server that it stops and starts itself."""

from __future__ import annotations

import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stem_core import ConfigurationError
from stem_core.contracts.conformance import _outage, conform, main
from stem_core.contracts.outage import by_commands
from stem_core.contracts.parts import Part
from stem_core.plugins import discover
from tests.servers import ValkeyServer, free_port


class Outages(Part):
    """The tests of a contract that need an outage."""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if "outage" in getattr(item, "fixturenames", ())]


class Valkey:
    """A server that shell commands start and stop."""

    def __init__(self, directory: Path) -> None:
        template = ValkeyServer(appendfsync="always")
        template.directory = directory
        template.port = self.port = free_port()
        template._prepare()
        self.url = template.url
        pid = shlex.quote(str(directory / "pid"))
        words = [*template._command(), "--pidfile", str(directory / "pid")]
        # In the background, with our output open, as scripts do it.
        self.start = f"cd {shlex.quote(str(directory))} && {shlex.join(words)} &"
        self.stop = f"until [ -s {pid} ]; do sleep 0.02; done; kill $(cat {pid}) && while [ -e {pid} ]; do sleep 0.02; done"

    def runs(self) -> bool:
        with socket.socket() as link:
            return link.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path)
    subprocess.run(server.start, shell=True, check=True)
    until = time.monotonic() + 30
    while not server.runs():
        assert time.monotonic() < until
        time.sleep(0.01)
    yield server
    if server.runs():
        subprocess.run(server.stop, shell=True, check=True)


@pytest.mark.parametrize("kind", ["broker", "backend"])
def test_laws_of_an_outage_are_tested_and_kept(valkey: Valkey, kind: Any) -> None:
    catalogue = discover()
    outage = _outage(catalogue, valkey.url, valkey.stop, valkey.start)
    report = conform(catalogue, kind, valkey.url, profile="quick", seed=1, part=Outages(), outage=outage)
    assert {each.law: (each.outcome, each.tests > 0) for each in report.laws} == {
        15: ("kept", True),
        19: ("kept", True),
    }
    assert valkey.runs()


def test_wrong_commands_break_no_law(valkey: Valkey, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (("--stop-command", valkey.stop), "--stop-command and --start-command go together"),
        (("--stop-command", "echo no such unit >&2; false", "--start-command", valkey.start), "no such unit"),
        (("--stop-command", "true", "--start-command", "true"), "still takes connections"),
    ):
        assert main([valkey.url, *words]) == 2
        assert said in capsys.readouterr().err
    assert main(["json", "--stop-command", "true", "--start-command", "true"]) == 2
    assert "has no server" in capsys.readouterr().err
    assert valkey.runs()


def test_the_server_is_waited_for() -> None:
    answers = [OSError("refused"), OSError("refused")]

    def reachable() -> None:
        if answers:
            raise answers.pop()

    with by_commands("true", "true", reachable)():
        assert len(answers) == 2
    assert answers == []


def test_a_command_that_stays_in_the_foreground_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stem_core.contracts.outage._LONGEST_COMMAND", 0.1)
    with pytest.raises(ConfigurationError, match="leave it in the background"):
        by_commands(f"{sys.executable} -c 'import time; time.sleep(60)'", "true", lambda: None)().__enter__()
