"""What Stem finds: a description of the broker. Nothing is opened here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from stem_core.hookspecs import hookimpl
from stem_core.ports import AdapterOptions, Broker, BrokerCapabilities, BrokerSpec

__all__ = ["SHELF", "stem_brokers"]


def _open(url: str, options: AdapterOptions) -> Broker:
    from stem_shelf.broker import ShelfBroker

    return ShelfBroker(url, options, SHELF.capabilities)


SHELF: Final = BrokerSpec(
    name="shelf",
    schemes=("shelf",),
    contract=1,
    summary="In one JSON file for each namespace: shelf:///absolute/folder",
    capabilities=BrokerCapabilities(delay=True, once_ttl=True, multi_process=True),
    open=_open,
)


@hookimpl
def stem_brokers() -> Iterable[BrokerSpec]:
    return (SHELF,)
