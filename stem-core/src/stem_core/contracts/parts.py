"""One run of the laws in several processes at once: where real time must pass, most of it is spent asleep.

Each process runs every n-th test and answers with its reports as JSON; :func:`merged` makes one of them.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final, Self

import pytest

from stem_core.contracts.report import Finding, Outcome, Report, load
from stem_core.errors import ConfigurationError

__all__ = ["Part", "in_parts", "merged"]

#: What one part says of a law counts more than what comes after it here.
_WEIGHT: Final[tuple[Outcome, ...]] = ("broken", "kept", "not tested", "not declared")


@dataclass(frozen=True, slots=True)
class Part:
    """Every ``count``-th test, from the one at ``index``. A pytest plugin."""

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Self:
        """Of ``"index/count"``."""
        index, count = text.split("/")
        return cls(int(index), int(count))

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        # Neighbours take about as long as each other, so they go to different parts.
        items[:] = items[self.index :: self.count]


def in_parts(words: Sequence[str], count: int) -> list[Report]:
    """The reports of ``stem conformance`` with ``words``, run as ``count`` processes.

    :raises ConfigurationError: one of them could not run; the message is its own.
    """
    with ThreadPoolExecutor(count) as pool:
        parts = list(pool.map(lambda index: _run([*words, "--part", f"{index}/{count}"]), range(count)))
    return [merged(of_one_kind) for of_one_kind in zip(*parts, strict=True)]


def _run(words: Sequence[str]) -> list[Report]:
    command = [sys.executable, "-m", "stem_core.cli", "conformance", *words, "--json", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (our own words)
    if done.returncode not in {0, 1}:
        raise ConfigurationError(done.stderr.strip().removeprefix("stem conformance: "))
    return load(done.stdout)


def merged(parts: Sequence[Report]) -> Report:
    """One report of the parts of one run; it took as long as the longest."""
    laws: dict[int, Finding] = {}
    for finding in (finding for part in parts for finding in part.laws):
        known = laws.get(finding.law)
        laws[finding.law] = finding if known is None else _both(known, finding)
    return replace(
        parts[0],
        seconds=max(part.seconds for part in parts),
        laws=tuple(finding for _, finding in sorted(laws.items())),
    )


def _both(one: Finding, two: Finding) -> Finding:
    outcome = min(one.outcome, two.outcome, key=_WEIGHT.index)
    details = [each.detail for each in (one, two) if each.outcome == outcome and each.detail]
    return replace(
        one,
        outcome=outcome,
        tests=one.tests + two.tests,
        seconds=round(one.seconds + two.seconds, 2),
        detail=("\n\n" if outcome == "broken" else ", ").join(dict.fromkeys(details)),
    )
