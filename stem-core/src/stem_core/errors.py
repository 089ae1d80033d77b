"""Every error Stem raises, by what the caller can do about it.

StemError
├── ConfigurationError        fix the wiring: unknown plugin, bad URL, missing key
│   └── PluginError           a plugin that was found and cannot be used
├── UnsupportedCapability     the adapter does not offer this; ask another way
├── EncodeError               this value cannot travel; nothing was published
├── DecodeError               these bytes are not what they claim; never retried
├── SignatureInvalid          these bytes are not from who they claim; never run
├── PayloadTooLarge           over the limit; nothing was stored
├── PublishError              the broker did not take the message (``outcome``)
├── AdapterError              a store or its connection failed; may be retried
├── LeaseLost                 this worker no longer owns the delivery
├── TaskFailed                the task ended in failure; carries the remote error
├── TaskRevoked               the task was cancelled before it finished
├── TaskTimeout               no terminal state within the timeout
└── SoftTimeLimitExceeded     raised *inside* a task when its soft limit ends

All of them pickle: whatever an error holds is in ``args``.
"""

from __future__ import annotations

from typing import Literal

__all__ = [
    "AdapterError",
    "ConfigurationError",
    "DecodeError",
    "EncodeError",
    "LeaseLost",
    "PayloadTooLarge",
    "PluginError",
    "PublishError",
    "SignatureInvalid",
    "SoftTimeLimitExceeded",
    "StemError",
    "TaskFailed",
    "TaskRevoked",
    "TaskTimeout",
    "UnsupportedCapability",
]


class StemError(Exception):
    """The root of everything Stem raises on purpose."""


class ConfigurationError(StemError):
    """The application is wired wrongly; nothing was attempted."""


class PluginError(ConfigurationError):
    """A plugin was found but cannot be used."""


class UnsupportedCapability(StemError):
    """An adapter was asked for what it does not declare; nothing was done."""


class EncodeError(StemError):
    """A value cannot be carried by its encoder. The message holds the path to it."""


class DecodeError(StemError):
    """Bytes are not what their encoder, or the wire format, says they are."""


class SignatureInvalid(StemError):
    """A message is unsigned, badly signed, or signed by a key that is not trusted for it."""


class PayloadTooLarge(StemError):
    """A message or a result is over the limit; nothing of it was stored."""


class PublishError(StemError):
    """A message was not, or may not have been, stored.

    ``outcome`` is ``"refused"`` when nothing was stored for certain, ``"unknown"`` when any
    subset may have been.
    """

    def __init__(self, message: str, outcome: Literal["refused", "unknown"] = "unknown") -> None:
        super().__init__(message, outcome)
        self.outcome = outcome

    def __str__(self) -> str:
        return str(self.args[0])


class AdapterError(StemError):
    """A store refused, failed, or could not be reached. The driver's error is the cause."""


class LeaseLost(StemError):
    """The lease on a delivery ended; another worker may own it already."""


class TaskFailed(StemError):
    """A task ended in failure.

    ``type``, ``message`` and ``traceback`` are text from the process that ran it.
    """

    def __init__(self, task_id: str, type: str, message: str, traceback: str = "") -> None:
        super().__init__(task_id, type, message, traceback)
        self.task_id = task_id
        self.type = type
        self.message = message
        self.traceback = traceback

    def __str__(self) -> str:
        return f"Task {self.task_id} failed: {self.type}: {self.message}"


class TaskRevoked(StemError):
    """A task was cancelled: revoked, expired, or part of a cancelled graph."""


class TaskTimeout(StemError):
    """A task reached no terminal state in the time given; it may still."""


class SoftTimeLimitExceeded(StemError):
    """The soft time limit of the running task ended; clean up and return or raise."""
