"""What is logged of how a task ended, by ``stem.task`` and with the fields that ``ctx.log`` has.

========================  =======  ====================================
failed for good           error    with the traceback
failed, tried again       warning  the error, and when it is tried again
revoked, expired          info     why
succeeded                 debug    how long it took
========================  =======  ====================================
"""

from __future__ import annotations

import logging

from stem_core.worker.outcome import Cancelled, Failed, Finish, Retried, Succeeded

__all__ = ["log_end"]

_log = logging.getLogger("stem.task")


def log_end(finish: Finish) -> None:
    """Log the end of a task; what was only given back, or recorded before, is none."""
    end = finish.end
    if isinstance(end, Succeeded):
        if _log.isEnabledFor(logging.DEBUG):
            _say(finish, logging.DEBUG, f"Succeeded in {end.seconds:.3f} s")
    elif isinstance(end, Failed):
        error = end.error
        _say(finish, logging.ERROR, f"Failed ({end.reason}): {error.type}: {error.message}", error.traceback)
    elif isinstance(end, Retried):
        error = end.error
        text = f"Failed, and is tried again in {end.delay:.3g} s: {error.type}: {error.message}"
        _say(finish, logging.WARNING, text)
    elif isinstance(end, Cancelled):
        _say(finish, logging.INFO, f"Was cancelled: {end.reason}")


def _say(finish: Finish, level: int, text: str, traceback: str = "") -> None:
    envelope = finish.envelope
    if envelope is None or not _log.isEnabledFor(level):
        return
    fields = {
        "task_id": envelope.id,
        "task_name": envelope.shadow or envelope.name,
        "queue": envelope.queue,
        "attempt": finish.delivery.attempt,
    }
    record = _log.makeRecord(_log.name, level, __file__, 0, "%s", (_visible(text),), None, "log_end", fields)
    if traceback:
        lines = traceback.rstrip("\n").split("\n")
        record.exc_text = "\n".join(
            map(_visible, lines)
        )  # formatters print it, as if the exception were here
    _log.handle(record)


def _visible(line: str) -> str:
    """A line of an error, which may quote whoever enqueued: it stays one line, and steers no terminal."""
    if line.isprintable():
        return line
    return "".join(each if each.isprintable() or each == "\t" else repr(each)[1:-1] for each in line)
