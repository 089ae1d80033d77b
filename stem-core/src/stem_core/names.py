"""Names Stem itself puts on the wire: built-in tasks, meta keys and dead-letter reasons."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

__all__ = [
    "COLLECT_TASK",
    "DEADLINE_TASK",
    "REPLY_TASK",
    "RESULT_ENCODER_META",
    "DeadReason",
]

#: Gathers the results of a group that stands in a member's place; run by every worker.
COLLECT_TASK: Final = "stem.collect"
#: Closes a group whose deadline has come; run by every worker.
DEADLINE_TASK: Final = "stem.deadline"
#: Sent to the ``reply_to`` queue; its handler is the application's.
REPLY_TASK: Final = "stem.reply"

#: Stamped on every status with a payload: the encoder that reads it.
RESULT_ENCODER_META: Final = "__stemResultEncoder"


class DeadReason(StrEnum):
    """Why a message was put aside."""

    MAX_RETRIES = "max-retries-exhausted"
    REJECTED = "rejected"
    UNKNOWN_TASK = "unknown-task"
    DECODE_FAILED = "decode-failed"
    SIGNATURE_INVALID = "signature-invalid"
    CRASH_LOOP = "crash-loop"
    INPUT_MISSING = "input-missing"
