"""What both built-in brokers check of a message before anything is stored."""

from __future__ import annotations

from collections.abc import Sequence

from stem_core.clock import instant
from stem_core.envelope import Message
from stem_core.errors import PayloadTooLarge, UnsupportedCapability
from stem_core.ports.capabilities import BrokerCapabilities

__all__ = ["check_messages"]


def check_messages(messages: Sequence[Message], capabilities: BrokerCapabilities) -> None:
    """Refuse what these capabilities do not cover.

    :raises PayloadTooLarge: a message is over ``max_size``.
    :raises ValueError: a priority that is no level, or a naive ``not_before``.
    :raises UnsupportedCapability: a route, without ``routing``.
    """
    levels, limit = capabilities.priority_levels, capabilities.max_size
    for message in messages:
        if message.route and not capabilities.routing:
            raise UnsupportedCapability(
                f"message {message.id!r} has the route {dict(message.route)}; this broker does not declare routing, so "
                "publish it without exchange, routing_key and producer"
            )
        if limit is not None and len(message.sealed) > limit:
            raise PayloadTooLarge(
                f"message {message.id!r} is {len(message.sealed)} bytes sealed, over the {limit} of this broker; send "
                "a reference to the data in its place"
            )
        if not 0 <= message.priority < levels:
            raise ValueError(
                f"message {message.id!r} has priority {message.priority}; the levels are 0 to {levels - 1}"
            )
        if message.not_before is not None and message.not_before.tzinfo is None:
            instant(message.not_before)
