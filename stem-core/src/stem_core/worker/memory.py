"""How much memory a process uses."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

__all__ = ["resident"]


def resident(pid: int | None = None) -> int:
    """Bytes of a process in memory, of this one without ``pid``; 0 where that cannot be told."""
    try:
        text = Path(f"/proc/{pid or 'self'}/statm").read_text("ascii")
        return int(text.split()[1]) * resource.getpagesize()
    except OSError:
        if pid is not None:
            return 0
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
