"""A figure beside its physical limit, round by round, and the table of all of them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["COUNT", "MICROSECONDS", "MILLISECONDS", "RATE", "Figure", "Round", "gather", "table"]

#: Units: how a value is scaled, how many decimals it gets, and what follows it.
RATE: Final = "/s"
MICROSECONDS: Final = "us"
MILLISECONDS: Final = "ms"
COUNT: Final = "a second"
_SCALES: Final = {RATE: (1, 0), MICROSECONDS: (1e6, 1), MILLISECONDS: (1e3, 2), COUNT: (1, 2)}


@dataclass(frozen=True)
class Round:
    """One measurement: ours and the limit measured around it, both per second or both in seconds.

    ``limit`` None: there is no limit to compare with, and ``aim`` bounds the value itself. ``at_most``: small is good.
    """

    name: str
    ours: float
    limit: float | None
    unit: str = RATE
    aim: float | None = None
    at_most: bool = False


@dataclass(frozen=True)
class Figure:
    """All rounds of one measurement."""

    group: str
    rounds: tuple[Round, ...]

    @property
    def name(self) -> str:
        return self.rounds[0].name

    @property
    def ours(self) -> float:
        return statistics.median(each.ours for each in self.rounds)

    @property
    def limit(self) -> float | None:
        limits = [each.limit for each in self.rounds if each.limit is not None]
        return statistics.median(limits) if limits else None

    @property
    def ratios(self) -> list[float]:
        """Ours to the limit of the same round, lowest first."""
        return sorted(each.ours / each.limit for each in self.rounds if each.limit)

    @property
    def judged(self) -> float:
        """What the aim is held against: the median of the ratios, or the value where there is no limit."""
        return statistics.median(self.ratios) if self.ratios else self.ours

    @property
    def met(self) -> bool | None:
        """Whether the aim is met; None without one."""
        first = self.rounds[0]
        if first.aim is None:
            return None
        return self.judged <= first.aim if first.at_most else self.judged >= first.aim

    def as_json(self) -> dict[str, Any]:
        first = self.rounds[0]
        return {
            "group": self.group,
            "name": self.name,
            "unit": "seconds" if first.unit in {MICROSECONDS, MILLISECONDS} else "per second",
            "ours": self.ours,
            "limit": self.limit,
            "ratio": statistics.median(self.ratios) if self.ratios else None,
            "ratios": self.ratios,
            "aim": first.aim,
            "aim_is": "at most" if first.at_most else "at least",
            "met": self.met,
        }


def gather(group: str, rounds: Iterable[Round]) -> list[Figure]:
    """Rounds by name, in the order of their first appearance."""
    named: dict[str, list[Round]] = {}
    for each in rounds:
        named.setdefault(each.name, []).append(each)
    return [Figure(group, tuple(same)) for same in named.values()]


def table(figures: Sequence[Figure]) -> str:
    """For people: a line per figure, with the lowest and highest ratio of its rounds."""
    head = f"{'':40}{'Stem':>14}{'limit':>14}{'ratio':>8}{'of rounds':>15}   {'aim':10}"
    lines: list[str] = []
    group = ""
    for figure in figures:
        if figure.group != group:
            group = figure.group
            lines += ["", f"{group:40}{head[40:]}".rstrip()]
        lines.append(_line(figure))
    return "\n".join(lines).lstrip("\n")


def _line(figure: Figure) -> str:
    first, ratios = figure.rounds[0], figure.ratios
    ratio = (
        f"{statistics.median(ratios):8.2f}{f'{ratios[0]:.2f}..{ratios[-1]:.2f}':>15}" if ratios else " " * 23
    )
    limit = _value(figure.limit, first.unit) if figure.limit is not None else "-"
    verdict = ""
    if first.aim is not None:
        verdict = f"{'<=' if first.at_most else '>='} {first.aim:<7g}{'met' if figure.met else 'MISSED'}"
    return f"  {figure.name:38}{_value(figure.ours, first.unit):>14}{limit:>14}{ratio}   {verdict}".rstrip()


def _value(value: float, unit: str) -> str:
    scale, decimals = _SCALES[unit]
    return f"{value * scale:,.{decimals}f} {unit}" if unit != RATE else f"{value:,.0f}/s"
