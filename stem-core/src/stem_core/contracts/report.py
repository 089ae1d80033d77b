"""What a run of the laws found, as values, as JSON, and as text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

__all__ = ["Finding", "Report", "load", "render", "table"]

Outcome = Literal["kept", "broken", "not declared", "not tested"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One law. ``detail``: how it was broken, with the shrunk example; or what is not declared."""

    law: int
    title: str
    outcome: Outcome
    tests: int
    seconds: float
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One adapter under one contract. ``seed`` and ``profile`` repeat the run; ``clock``: time was injected."""

    kind: str
    adapter: str
    distribution: str
    version: str
    server: str
    stem: str
    contract: int
    python: str
    profile: str
    seed: int
    clock: bool
    seconds: float
    laws: tuple[Finding, ...] = field(default=())

    @property
    def broken(self) -> list[Finding]:
        return [finding for finding in self.laws if finding.outcome == "broken"]

    def to_json(self) -> dict[str, Any]:
        """Plain data; :func:`load` is its inverse."""
        return {**asdict(self), "laws": [asdict(finding) for finding in self.laws], "kept": not self.broken}


def load(text: str) -> list[Report]:
    """The reports in a JSON file that ``stem conformance --json`` wrote."""
    reports = []
    for each in json.loads(text)["reports"]:
        fields = {name: value for name, value in each.items() if name not in {"laws", "kept"}}
        reports.append(Report(**fields, laws=tuple(Finding(**finding) for finding in each["laws"])))
    return reports


def table(report: Report) -> str:
    """A report for people: one line a law, then how the broken ones were broken."""
    server = f", {report.server}" if report.server else ""
    subject = f"{report.kind} {report.adapter} ({report.distribution} {report.version}{server})"
    run = f"profile {report.profile}, seed {report.seed}{', injected clock' if report.clock else ''}"
    lines = [f"{subject}, contract {report.contract}, {run}"]
    for finding in report.laws:
        note = "" if finding.outcome in {"kept", "broken"} else finding.detail
        lines.append(
            f"  law {finding.law:>2}  {finding.outcome:<12}  {finding.title:<58} {finding.tests:>3} tests "
            f"{finding.seconds:6.1f} s  {note}".rstrip()
        )
    for finding in report.broken:
        lines += ["", f"law {finding.law} is broken:", *("  " + line for line in finding.detail.splitlines())]
    kept = sum(finding.outcome == "kept" for finding in report.laws)
    lines.append(f"{kept} laws kept, {len(report.broken)} broken, {report.seconds:.1f} s")
    return "\n".join(lines)


_SIGNS = {"kept": "kept", "broken": "**broken**", "not declared": "-", "not tested": "not tested"}


def render(reports: Sequence[Report]) -> str:
    """``docs/conformance.md``: the laws down, the adapters across, a table for each contract."""
    lines = [
        "# Conformance",
        "",
        "Which laws of the [adapter contract](writing-an-adapter.md#the-laws) our adapters keep. Made from the JSON of",
        "`stem conformance URL --json FILE`; `-` means the adapter does not declare it (and refuses it, which law 0",
        "tests), *not tested* that this run had no means to: law 15 wants a server it can stop (`--stop-command`), law 51 two",
        "sets of keys. Both are tested in the adapters' own suites, and so is law 19 where a server is killed and started.",
    ]
    for kind in dict.fromkeys(report.kind for report in reports):
        mine = [report for report in reports if report.kind == kind]
        lines += [
            "",
            f"## {kind.capitalize()}s",
            "",
            f"| law | | {' | '.join(report.adapter for report in mine)} |",
        ]
        lines.append(f"| --- | --- | {' | '.join('---' for _ in mine)} |")
        titles = {finding.law: finding.title for report in mine for finding in report.laws}
        for law, title in sorted(titles.items()):
            cells = [next((f.outcome for f in report.laws if f.law == law), "not tested") for report in mine]
            lines.append(f"| {law} | {title} | {' | '.join(_SIGNS[cell] for cell in cells)} |")
        lines.append("")
        lines += [
            f"- {report.adapter}: {report.distribution} {report.version}{', ' + report.server if report.server else ''}, "
            f"contract {report.contract}, Python {report.python}, profile {report.profile}, seed {report.seed}, "
            f"{'injected clock' if report.clock else 'real time'}"
            for report in mine
        ]
    return "\n".join(lines) + "\n"
