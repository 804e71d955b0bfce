"""Whether another process runs: tells dead and stopped processes from slow ones."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

_STOPPED = frozenset("TtZX")


def is_running(pid: int) -> bool:
    """Whether a process exists and is not stopped; where the system does not tell, a process that exists is running."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        if not sys.platform.startswith("linux"):
            with contextlib.suppress(OSError):
                os.kill(pid, 0)
                return True
        return False
    return stat.rpartition(")")[2].split()[0] not in _STOPPED
