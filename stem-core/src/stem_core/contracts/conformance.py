"""``stem conformance URL``: the laws on an installed adapter, and what became of each.

The tests are run by pytest, from a file of one line in a directory of its own, by a plugin that listens.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import importlib_metadata
import pytest

from stem_core.contracts.against import first_divergence
from stem_core.contracts.blame import law_of, leaves, told
from stem_core.contracts.broker.lab import BrokerLab
from stem_core.contracts.driver import Driver, unique
from stem_core.contracts.laws import LAWS
from stem_core.contracts.outage import Outage, by_commands
from stem_core.contracts.pace import Pace
from stem_core.contracts.parts import Part, in_parts
from stem_core.contracts.profile import PROFILES, choose
from stem_core.contracts.report import Finding, Outcome, Report, load, render, table
from stem_core.contracts.subject import KINDS, Kind, kinds_of, lives_by_the_clock, subject
from stem_core.contracts.time import ManualTime, RealTime
from stem_core.errors import ConfigurationError, StemError
from stem_core.plugins import Catalogue, discover
from stem_core.ports.specs import BackendSpec, BrokerSpec, EncoderSpec, SignerSpec
from stem_core.url import scheme_of

__all__ = ["Report", "conform", "load", "main", "render", "table"]

_AUTOLOAD: Final = "PYTEST_DISABLE_PLUGIN_AUTOLOAD"
_NUMBER: Final = re.compile(r"test_law_(\d+)_")
_WHOLE: Final = Part()
#: Processes where real time must pass: enough to keep two processors busy, few enough for tests about moments.
_JOBS: Final = 4
Spec = BrokerSpec | BackendSpec | EncoderSpec | SignerSpec


@dataclass
class _Heard:
    """What was heard of one law."""

    passed: int = 0
    seconds: float = 0.0
    broken: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    @property
    def tests(self) -> int:
        return self.passed + len(self.broken)

    def finding(self, law: int) -> Finding:
        outcome: Outcome = "kept"
        detail = ""
        if self.broken:
            outcome, detail = "broken", "\n\n".join(self.broken)
        elif not self.passed:
            declared = any("not given" in reason or "needs" in reason for reason in self.skipped)
            outcome = "not tested" if declared else "not declared"
            detail = ", ".join(dict.fromkeys(reason.partition(": ")[2] or reason for reason in self.skipped))
        return Finding(law, LAWS[law], outcome, self.tests, round(self.seconds, 2), detail)


class _Listener:
    """A pytest plugin that sorts outcomes by law."""

    def __init__(self) -> None:
        self.laws: dict[int, _Heard] = {}
        self.errors: list[str] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if call.when == "call" or report.outcome != "passed":
            self._hear(item, call, report)
        return report

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.errors.append(report.longreprtext)

    def _hear(self, item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport) -> None:
        name = item.originalname if isinstance(item, pytest.Function) else item.name
        number = _NUMBER.match(name or "")
        law = int(number.group(1)) if number else 0
        error = call.excinfo.value if call.excinfo else None
        if report.outcome == "failed" and error is not None:
            whole = number is None and name == "test_agrees_with_the_model"
            for place, each in enumerate(leaves(error)):
                heard = self.laws.setdefault(law_of(each) if whole else law, _Heard())
                heard.seconds += 0.0 if place else call.duration
                heard.broken.append(f"{item.name}\n{told(each)}")
            return
        heard = self.laws.setdefault(law, _Heard())
        heard.seconds += call.duration
        if report.outcome == "skipped":
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            if not reason.startswith("Skipped: declared"):
                heard.skipped.append(reason.removeprefix("Skipped: "))
        elif report.outcome == "failed":
            heard.broken.append(f"{item.name}\n{report.longreprtext}")
        else:
            heard.passed += 1


def conform(
    catalogue: Catalogue,
    kind: Kind,
    name: str,
    *,
    profile: str,
    seed: int,
    part: Part = _WHOLE,
    outage: Outage | None = None,
) -> Report:
    """Run the laws of ``kind`` on the adapter of URL (or id) ``name``, or a ``part`` of their tests.

    :param outage: of its server, for law 15 and the durable part of law 19.
    :raises ConfigurationError: there is no such adapter, or its store cannot be used.
    """
    environment = dict(os.environ)
    made = subject(
        catalogue, kind, name, profile, environment, outage
    )  # fails here, in the open, when it must
    listener = _Listener()
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="stem-conformance-") as folder:
        # A name of its own each time: an imported module is not imported again.
        module = f"test_{kind}_{unique()}"
        (Path(folder) / f"{module}.py").write_text(
            f"from {module}_subject import TestSubject as TestSubject\n"
        )
        (Path(folder) / "pytest.ini").write_text("[pytest]\nxfail_strict = true\n")
        words = [
            folder,
            f"--rootdir={folder}",
            f"--confcutdir={folder}",
            f"--config-file={folder}/pytest.ini",
            f"--hypothesis-seed={seed}",
            "--import-mode=importlib",
            *("-p", "no:terminal", "-p", "no:cacheprovider", "-p", "_hypothesis_pytestplugin"),
        ]
        with _alone():
            status = pytest.main(words, plugins=[listener, part, _Supplier(f"{module}_subject", made)])
    fine = {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}
    if part.count > 1:
        fine.add(pytest.ExitCode.NO_TESTS_COLLECTED)
    if listener.errors or status not in fine:
        raise ConfigurationError(f"the suite could not run ({status!r}): {' '.join(listener.errors)}")
    spec: Spec = made.broker if kind == "committer" else made.spec
    distribution, version = _origin(catalogue, kind, spec)
    return Report(
        kind=kind,
        adapter=spec.name if isinstance(spec, BrokerSpec | BackendSpec) else spec.id,
        distribution=distribution,
        version=version,
        server=_server(spec, name),
        stem=importlib_metadata.version("stem-core"),
        contract=spec.contract,
        python=platform.python_version(),
        profile=profile,
        seed=seed,
        clock=getattr(made, "clock", False),
        seconds=round(time.monotonic() - start, 1),
        laws=tuple(
            heard.finding(law) for law, heard in sorted(listener.laws.items()) if heard.tests or heard.skipped
        ),
    )


class _Supplier:
    """Gives the generated test file its class, as the module it imports, while pytest runs."""

    def __init__(self, name: str, made: type[Any]) -> None:
        self.name = name
        self.module = ModuleType(name)
        self.module.__dict__["TestSubject"] = made

    def pytest_sessionstart(self) -> None:
        sys.modules[self.name] = self.module

    def pytest_sessionfinish(self) -> None:
        sys.modules.pop(self.name, None)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Without whatever pytest plugins happen to be installed here."""
    before = os.environ.get(_AUTOLOAD)
    os.environ[_AUTOLOAD] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_AUTOLOAD]
        else:
            os.environ[_AUTOLOAD] = before


def _origin(catalogue: Catalogue, kind: Kind, spec: Spec) -> tuple[str, str]:
    name = spec.schemes[0] if isinstance(spec, BrokerSpec | BackendSpec) else spec.id
    owner = catalogue.owners.get(("broker" if kind == "committer" else kind, name), "")
    found = next((plugin for plugin in catalogue.plugins if plugin.distribution in owner), None)
    return (found.distribution, found.version) if found else (owner, "")


def _server(spec: Spec, url: str) -> str:
    """What an open adapter says of its server, where it says something (``server_version``)."""
    if not isinstance(spec, BrokerSpec | BackendSpec):
        return ""
    with Driver(RealTime()) as driver:
        adapter: Any = driver.broker(spec, url) if isinstance(spec, BrokerSpec) else driver.backend(spec, url)
        return str(getattr(adapter, "server_version", "") or "")


def _lab(spec: BrokerSpec, url: str, exact: bool) -> BrokerLab:
    pace = Pace(
        exact=exact, resolution=spec.capabilities.resolution, lease=None, settle=None, skew=0.0, prompt=10.0
    )
    return BrokerLab(Driver(ManualTime() if exact else RealTime()), spec, url, pace)


def _compare(catalogue: Catalogue, url: str, against: str, profile: str, seed: int) -> int:
    specs = [catalogue.broker(each) for each in (url, against)]
    exact = all(lives_by_the_clock(spec, each) for spec, each in zip(specs, (url, against), strict=True))
    makers: list[Callable[[], BrokerLab]] = [
        partial(_lab, spec, each, exact) for spec, each in zip(specs, (url, against), strict=True)
    ]
    examples = choose(profile).properties * 8
    found = first_divergence(makers[0], makers[1], examples=examples, number=seed)
    if found is None:
        _say(f"{specs[0].name} and {specs[1].name} agree in {examples} histories, seed {seed}")
        return 0
    _say(f"{specs[0].name} (one) and {specs[1].name} (other) differ, seed {seed}:\n{found}")
    return 1


def _outage(catalogue: Catalogue, url: str, stop: str | None, start: str | None) -> Outage | None:
    """What ``--stop-command`` and ``--start-command`` make; tried once, so that a wrong command breaks no law.

    :raises ConfigurationError: one of them is missing or fails, or there is no server to stop.
    """
    if stop is None and start is None:
        return None
    if not stop or not start:
        raise ConfigurationError(
            "--stop-command and --start-command go together: a server is stopped and started"
        )
    if "://" not in url:
        raise ConfigurationError(
            f"{url!r} has no server; --stop-command goes with the URL of a broker or backend"
        )
    found = catalogue.brokers.get(scheme_of(url))

    def reachable() -> None:
        with Driver(RealTime()) as driver:
            if found is not None:
                driver.broker(found, url)
            else:
                driver.backend(catalogue.backend(url), url)

    reachable()
    outage = by_commands(stop, start, reachable)
    with outage():
        try:
            reachable()
        except StemError:
            return outage
    raise ConfigurationError(
        f"after {stop!r} the server at this URL still takes connections; is it another one?"
    )


def _jobs(catalogue: Catalogue, kind: Kind, name: str) -> int:
    """How many processes a run is worth."""
    if kind in {"encoder", "signer"}:
        return 1
    spec = catalogue.backend(name) if kind == "backend" else catalogue.broker(name)
    return 1 if lives_by_the_clock(spec, name) else _JOBS


def _several(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} processes run nothing; 1 or more do")
    return number


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def main(argv: Sequence[str]) -> int:
    """The command; 0 when every declared law is kept, 1 when one is broken, 2 when it could not be run."""
    parser = argparse.ArgumentParser(
        prog="stem conformance", description="Prove that an adapter keeps the laws of the contract."
    )
    parser.add_argument("url", metavar="URL", help="an adapter's URL, or the id of an encoder or signer")
    parser.add_argument("--kind", choices=KINDS, help="only this contract; else each that applies")
    parser.add_argument("--profile", choices=sorted(PROFILES), default="quick")
    parser.add_argument("--seed", type=int, help="repeat a run")
    parser.add_argument("--json", metavar="FILE", help="write the reports there; - is standard output")
    parser.add_argument(
        "--against", metavar="URL", help="play one random history on this broker too, and compare"
    )
    parser.add_argument(
        "--jobs",
        type=_several,
        metavar="N",
        help=f"processes; else {_JOBS} where real time must pass, else 1",
    )
    parser.add_argument(
        "--stop-command",
        metavar="SHELL",
        help="makes the server unreachable, for law 15; runs in one process",
    )
    parser.add_argument("--start-command", metavar="SHELL", help="brings it back; must not wait for its end")
    parser.add_argument("--part", type=Part.parse, default=_WHOLE, help=argparse.SUPPRESS)
    given = parser.parse_args(list(argv))
    seed = random.randrange(2**32) if given.seed is None else given.seed
    catalogue = discover()
    try:
        if given.against:
            return _compare(catalogue, given.url, given.against, given.profile, seed)
        outage = _outage(catalogue, given.url, given.stop_command, given.start_command)
        kinds = (given.kind,) if given.kind else kinds_of(catalogue, given.url)
        # An outage is everybody's: no other test may run beside it.
        alone = given.part.count > 1 or outage is not None
        jobs = 1 if alone else given.jobs or _jobs(catalogue, kinds[0], given.url)
        if jobs > 1:
            words = [given.url, "--profile", given.profile, "--seed", str(seed)]
            reports = in_parts([*words, "--kind", given.kind] if given.kind else words, jobs)
        else:
            reports = [
                conform(
                    catalogue,
                    kind,
                    given.url,
                    profile=given.profile,
                    seed=seed,
                    part=given.part,
                    outage=outage,
                )
                for kind in kinds
            ]
    except StemError as error:
        sys.stderr.write(f"stem conformance: {error}\n")
        return 2
    text = json.dumps({"reports": [report.to_json() for report in reports]}, indent=2)
    if given.json == "-":
        _say(text)
    else:
        if given.json:
            Path(given.json).write_text(text + "\n", encoding="utf-8")
        _say("\n\n".join(map(table, reports)))
    return int(any(report.broken for report in reports))
