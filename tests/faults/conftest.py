"""Prints what caught which fault."""

from __future__ import annotations


def pytest_terminal_summary(terminalreporter) -> None:
    rows = [
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == "fault" and report.when == "call"
    ]
    if not rows:
        return
    terminalreporter.section("faults")
    for law, name, by, seconds, _ in sorted(rows):
        terminalreporter.write_line(f"law {law:<3} {name:<46} {by:<78} {seconds:6.2f} s")
    terminalreporter.write_line(f"{len(rows)} faults caught in {sum(row[3] for row in rows):.1f} s")
