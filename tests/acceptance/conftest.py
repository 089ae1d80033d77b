"""The same application over every pair of adapters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from stem_core import Stem

PAIRS = ("memory", "sqlite", "redis", "postgres", "redis+postgres")


class Pair(NamedTuple):
    """Where broker and backend are; ``make()`` is a Stem there, as any process would make it."""

    name: str
    broker: str
    backend: str
    namespace: str

    def make(self, **arguments: object) -> Stem:
        return Stem(self.broker, backend=self.backend, namespace=self.namespace, **arguments)


@pytest.fixture
def pair_of(request: pytest.FixtureRequest, tmp_path: Path, unique_name: str) -> Callable[[str], Pair]:
    def url(kind: str) -> str:
        if kind == "memory":
            return f"memory://{unique_name}"
        if kind == "sqlite":
            return f"sqlite:///{tmp_path / 'stem.db'}"
        if kind == "redis":
            return str(request.getfixturevalue("redis_url"))
        base = str(request.getfixturevalue("postgres_url"))
        return f"{base}{'&' if '?' in base else '?'}schema={unique_name}"

    def make(name: str) -> Pair:
        broker, _, backend = name.partition("+")
        return Pair(name, url(broker), url(backend or broker), unique_name)

    return make


@pytest.fixture(params=PAIRS)
def pair(request: pytest.FixtureRequest, pair_of: Callable[[str], Pair]) -> Pair:
    return pair_of(request.param)
