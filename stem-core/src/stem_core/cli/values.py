"""Values on the command line: durations, sizes, instants, JSON. For ``type=`` of argparse."""

from __future__ import annotations

import argparse
import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from stem_core.clock import instant

__all__ = [
    "add_option_flags",
    "assignment",
    "duration",
    "json_value",
    "moment",
    "options_of",
    "port",
    "size",
    "whole",
]

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|min|m|h|d)?")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_SIZE: Final = re.compile(r"(\d+)([KMG]?)(?:i?B)?", re.IGNORECASE)
_SIZES: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def whole(text: str) -> int:
    """A whole number."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def port(text: str) -> int:
    """A TCP port; 0 for a free one."""
    number = whole(text)
    if not 0 <= number <= 65_535:
        raise argparse.ArgumentTypeError(f"{text} is not a port: 0 to 65535")
    return number


def duration(text: str) -> float:
    """``30``, ``500ms``, ``2h`` as seconds."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a duration; write seconds, or 500ms, 30s, 5min, 2h, 1d"
        )
    return float(found[1]) * _UNITS[found[2] or "s"]


def interval(text: str) -> float:
    """A duration between two looks: longer than nothing, or looking would never rest."""
    found = duration(text)
    if found <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} leaves no time between two looks; write 500ms, 2s")
    return found


def size(text: str) -> int:
    """``512M`` as bytes."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; write bytes, or 64K, 512M, 2G")
    return int(found[1]) * _SIZES[found[2].upper()]


def moment(text: str) -> datetime:
    """An instant: ISO 8601 with its offset, or how long ago (``2h``)."""
    if _DURATION.fullmatch(text.strip()):
        return datetime.now(UTC) - timedelta(seconds=duration(text))
    try:
        return instant(datetime.fromisoformat(text))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an instant; write 2026-01-31T12:00:00+00:00, or how long ago: 2h, 7d"
        ) from None


def json_value(text: str) -> Any:
    """JSON."""
    try:
        return msgspec.json.decode(text.encode())
    except msgspec.DecodeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON: {error}") from None


def assignment(text: str) -> tuple[str, str]:
    """``name=value``."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not name=value")
    return name, value


def add_option_flags(parser: argparse.ArgumentParser) -> None:
    """Flags for the options of one publish that can be written down (see ``TaskEnqueueOptions``)."""
    group = parser.add_argument_group("options of the call")
    group.add_argument("--queue", help="the queue")
    group.add_argument("--delay", "--countdown", dest="countdown", type=duration, help="not before: 30s, 2h")
    group.add_argument("--eta", type=_ahead, help="not before this instant, ISO 8601 with offset")
    group.add_argument("--expires", type=_expiry, help="do not run after: 10min, or an instant")
    group.add_argument("--priority", type=whole, help="0 to 9, 9 is most urgent")
    group.add_argument("--task-id", help="the task's id; makes enqueueing it again do nothing")
    group.add_argument("--time-limit", type=duration, help="hard limit of a run")
    group.add_argument("--soft-time-limit", type=duration, help="soft limit of a run")
    group.add_argument("--serializer", help="encoder of the arguments")
    group.add_argument("--compression", help="encoder that compresses them")
    group.add_argument("--ignore-result", action="store_true", default=None, help="keep the status alone")
    group.add_argument("--shadow", help="name shown in logs and tools")
    group.add_argument("--reply-to", help="queue that is told of the end")
    group.add_argument("--exchange", help="routing, where the broker has it")
    group.add_argument("--routing-key", help="routing, where the broker has it")
    group.add_argument("--retry", action="store_true", default=None, help="retry the publish itself")


_OPTIONS: Final = (
    "queue",
    "countdown",
    "eta",
    "expires",
    "priority",
    "task_id",
    "time_limit",
    "soft_time_limit",
    "serializer",
    "compression",
    "ignore_result",
    "shadow",
    "reply_to",
    "exchange",
    "routing_key",
    "retry",
)


def options_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields of ``TaskEnqueueOptions`` that were given."""
    return {name: getattr(arguments, name) for name in _OPTIONS if getattr(arguments, name) is not None}


def _ahead(text: str) -> datetime:
    if _DURATION.fullmatch(text.strip()):
        raise argparse.ArgumentTypeError(f"{text!r} is not an instant; a duration goes with --delay")
    return moment(text)


def _expiry(text: str) -> datetime | float:
    return duration(text) if _DURATION.fullmatch(text.strip()) else moment(text)
