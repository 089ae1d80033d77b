"""Logs of a worker process and its children: text for people, one JSON object a line for programs."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec

from stem_core.context import TaskLogFilter

__all__ = ["Form", "JsonFormatter", "TextFormatter", "configure", "configured"]

Form = Literal["text", "json"]

#: What every record has; anything else was given as ``extra``.
_STANDARD: Final = frozenset(
    vars(logging.LogRecord("", 0, "", 0, "", (), None)) | {"message": "", "asctime": "", "taskName": ""}
)


class JsonFormatter(logging.Formatter):
    """``{"time", "level", "logger", "message", "pid", ...}``, the fields of ``extra``, and ``exception``."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
        }
        for name, value in vars(record).items():
            if name not in _STANDARD and value is not None:
                entry.setdefault(name, value)
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        elif record.exc_text:
            entry["exception"] = record.exc_text
        if record.stack_info:
            entry["stack"] = record.stack_info
        try:
            return msgspec.json.encode(entry, enc_hook=repr).decode()
        except (TypeError, ValueError, OverflowError):
            # A key that is no text, a lone surrogate, a number too large: the line is worth more than its form.
            return msgspec.json.encode({name: ascii(value) for name, value in entry.items()}).decode()


class TextFormatter(logging.Formatter):
    """One line a record: time, level, process, logger, the task it was logged in, message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(process)d %(name)s: %(task)s%(message)s")

    def format(self, record: logging.LogRecord) -> str:
        task_id = getattr(record, "task_id", None)
        if task_id is None:
            record.task = ""
        else:
            name, attempt = getattr(record, "task_name", "?"), getattr(record, "attempt", 0)
            record.task = f"[{name} {task_id} #{attempt}] "
        return super().format(record)


def configure(form: Form, level: str) -> None:
    """Send every logger's records from ``level`` on to standard error, with the fields of the running task."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    handler.addFilter(TaskLogFilter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


def configured() -> tuple[Form, str] | None:
    """What :func:`configure` was called with, None where logs are the application's own business."""
    root = logging.getLogger()
    for handler in root.handlers:
        if isinstance(handler.formatter, JsonFormatter | TextFormatter):
            form: Form = "json" if isinstance(handler.formatter, JsonFormatter) else "text"
            return form, logging.getLevelName(root.level)
    return None
