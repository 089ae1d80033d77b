"""``stem worker`` as real processes, watched from outside."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Self

PATIENCE = 60.0


class Answer(NamedTuple):
    status: int
    body: str


class Running:
    """A ``stem worker`` process in ``folder``, its log, and its health server."""

    def __init__(self, folder: Path, *words: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "stem_core.cli", "worker", *words],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder), "PYTHONUNBUFFERED": "1"},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.lines.append(line.rstrip("\n"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._reader.join(timeout=10)
        assert self._process.stderr is not None
        self._process.stderr.close()

    @property
    def log(self) -> str:
        return "\n".join(self.lines)

    @property
    def pid(self) -> int:
        return self._process.pid

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """The condition's answer, as soon as it is true."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            found = condition()
            if found:
                return found
            time.sleep(0.02)
        raise AssertionError(f"{what} has not come about in {PATIENCE:g} s; the log:\n{self.log}")

    def said(self, pattern: str, times: int = 1) -> list[str]:
        """Wait until the log matches ``pattern`` that often; what matched."""
        return self.until(
            lambda: found if len(found := re.findall(pattern, self.log)) >= times else None, pattern
        )

    def ask(self, path: str, method: str = "GET") -> Answer:
        """Ask the health server."""
        (url,) = self.said(r"Health and metrics on (http://[\w.:]+)")[:1]
        try:
            with urllib.request.urlopen(
                urllib.request.Request(url + path, method=method), timeout=10
            ) as response:
                return Answer(response.status, response.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.read().decode())
        except OSError as error:
            raise AssertionError(f"{url + path}: {error}; the log:\n{self.log}") from error

    def answers(self, path: str, status: int) -> Answer:
        """Wait until ``path`` is answered with ``status``."""
        return self.until(
            lambda: found if (found := self.ask(path)).status == status else None, f"{path}: {status}"
        )

    def metric(self, series: str) -> float:
        """The value of one series; 0 when it is not there yet."""
        found = re.search(rf"^{re.escape(series)} (\S+)$", self.ask("/metrics").body, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def counts(self, series: str, value: float) -> None:
        """Wait until a series has come to ``value``."""
        self.until(lambda: self.metric(series) >= value, f"{series} >= {value}")

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def ended(self) -> int:
        """Its exit status, once it has ended."""
        status = self._process.wait(timeout=PATIENCE)
        self._reader.join(timeout=10)
        return status


def children(log: str) -> list[int]:
    """The pids of a supervisor's processes, in the order they were started."""
    return [int(pid) for pid in re.findall(r"has started \(pid (\d+)\)", log)]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
