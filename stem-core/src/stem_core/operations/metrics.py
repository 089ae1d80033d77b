"""Metrics as plain data: families that add up over processes, and their Prometheus text form (version 0.0.4)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import Final, Literal

import msgspec

__all__ = ["BUCKETS", "CONTENT_TYPE", "Family", "Histogram", "merge", "render", "series"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
#: Upper bounds in seconds: from a no-op to what deserves a look.
BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)


class Family(msgspec.Struct, frozen=True):
    """One metric: its samples by series (``name{label="value"}``).

    ``total`` says how samples of several processes become one: added up, or the largest, where all of
    them report the same thing (the depth of a queue).
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    samples: dict[str, float]
    total: Literal["sum", "max"] = "sum"


class Histogram:
    """Counts values in :data:`BUCKETS`."""

    __slots__ = ("_counts", "_sum")

    def __init__(self) -> None:
        self._counts = [0] * (len(BUCKETS) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value, in seconds."""
        self._counts[bisect_left(BUCKETS, value)] += 1
        self._sum += value

    def samples(self, name: str, labels: Mapping[str, str]) -> dict[str, float]:
        """The series of this histogram: cumulative buckets, sum and count."""
        found: dict[str, float] = {}
        seen = 0
        for bound, count in zip((*BUCKETS, None), self._counts, strict=True):
            seen += count
            le = "+Inf" if bound is None else f"{bound:g}"
            found[series(f"{name}_bucket", {**labels, "le": le})] = seen
        found[series(f"{name}_sum", labels)] = self._sum
        found[series(f"{name}_count", labels)] = seen
        return found


def series(name: str, labels: Mapping[str, str]) -> str:
    """``name{label="value",...}``, with what the format reserves escaped."""
    if not labels:
        return name
    pairs = ",".join(f'{key}="{_escaped(value)}"' for key, value in labels.items())
    return f"{name}{{{pairs}}}"


def merge(reports: Iterable[Iterable[Family]]) -> list[Family]:
    """The families of several processes as those of one."""
    found: dict[str, Family] = {}
    for families in reports:
        for family in families:
            known = found.get(family.name)
            if known is None:
                found[family.name] = msgspec.structs.replace(family, samples=dict(family.samples))
                continue
            for key, value in family.samples.items():
                before = known.samples.get(key)
                if before is None:
                    known.samples[key] = value
                else:
                    known.samples[key] = before + value if family.total == "sum" else max(before, value)
    return list(found.values())


def render(families: Iterable[Family]) -> str:
    """What a Prometheus server scrapes."""
    lines: list[str] = []
    for family in families:
        help = family.help.replace("\\", r"\\").replace("\n", r"\n")
        lines += [f"# HELP {family.name} {help}", f"# TYPE {family.name} {family.kind}"]
        lines += [f"{key} {_number(value)}" for key, value in family.samples.items()]
    return "\n".join(lines) + "\n"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))
