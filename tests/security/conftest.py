"""Prints what each attack was answered with, under ``make security`` (pytest -s)."""

from __future__ import annotations

from typing import Any

import pytest


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if config.getoption("capture") != "no":
        return
    rows: dict[str, dict[str, str]] = {}
    for report in (*terminalreporter.stats.get("passed", ()), *terminalreporter.stats.get("failed", ())):
        told = dict(report.user_properties)
        if "attack" in told:
            answer = told["answer"] if report.passed else "NOT AS EXPECTED"
            rows.setdefault(told["table"], {})[told["attack"]] = answer
    for table, answers in rows.items():
        terminalreporter.section(table)
        for attack, answer in answers.items():
            terminalreporter.write_line(f"{attack:60} {answer}")
