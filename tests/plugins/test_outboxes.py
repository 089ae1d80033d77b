"""Outboxes are described, found by scheme and refused like brokers and backends."""

from __future__ import annotations

from typing import Any

import pytest

from stem_core.errors import ConfigurationError, PluginError
from stem_core.hookspecs import hookimpl
from stem_core.plugins import discover
from stem_core.ports import OutboxSpec


def unopened(url: str, options: Any) -> Any:
    raise AssertionError("a description must not connect")


class Provides:
    def __init__(self, *specs: Any) -> None:
        self.specs = specs

    @hookimpl
    def stem_outboxes(self) -> list[Any]:
        return list(self.specs)


def spec(contract: int = 1) -> OutboxSpec:
    return OutboxSpec(name="box", schemes=("box",), contract=contract, summary="for a test", open=unopened)


def test_an_outbox_is_found_by_its_scheme() -> None:
    given = spec()
    catalogue = discover((), {}, extra=(Provides(given),))
    assert catalogue.outbox("box://there") is given
    assert catalogue.plugins[-1].provides == ("outbox box",)


def test_a_missing_outbox_says_what_to_install() -> None:
    with pytest.raises(ConfigurationError, match=r"No outbox for 'postgresql://'.*pip install stem-postgres"):
        discover((), {}).outbox("postgresql://localhost/app")


def test_what_is_no_outbox_is_refused_by_the_hooks_name() -> None:
    with pytest.raises(PluginError, match="stem_outboxes must return OutboxSpec values"):
        discover((), {}, extra=(Provides("box"),))


def test_another_contract_is_refused() -> None:
    with pytest.raises(PluginError, match="speaks contract 2"):
        discover((), {}, extra=(Provides(spec(contract=2)),))
