"""How much memory a process uses, and when it will have used what it may: early enough to start another one first."""

from __future__ import annotations

import os
import subprocess
import time
from collections import deque

#: The growth of these last times, whichever is more, is taken for that of the next one, seconds.
_WINDOW_S, _SOON_S = 3.0, 0.5
_PAGE = os.sysconf("SC_PAGE_SIZE")
#: Where there is no /proc a look starts a process, so it is taken seldom.
HAS_PROC = os.path.isdir("/proc/self")


def rss_of(pid: int) -> int:
    """The resident memory of a process, bytes; 0 when it is gone, or nobody can tell."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return 0 if HAS_PROC else _by_ps(pid)


def _by_ps(pid: int) -> int:
    """Where there is no /proc."""
    try:
        told = subprocess.run(
            ["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, timeout=5, check=False
        )
        return int(told.stdout) * 1024
    except (OSError, ValueError, subprocess.SubprocessError):
        return 0


class Memory:
    """That of one process, looked at again and again."""

    def __init__(self, pid: int, ceiling: int) -> None:
        """ceiling: how much it may use, bytes."""
        self._pid = pid
        self._ceiling = ceiling
        #: What was seen when, monotonic seconds and bytes.
        self._seen: deque[tuple[float, int]] = deque()
        self.now = 0

    def look(self) -> None:
        """Look at it."""
        at, self.now = time.monotonic(), rss_of(self._pid)
        self._seen.append((at, self.now))
        while at - self._seen[0][0] > _WINDOW_S:
            self._seen.popleft()

    @property
    def is_over(self) -> bool:
        """Whether it uses more than it may."""
        return self.now >= self._ceiling

    def is_over_in(self, seconds: float) -> bool:
        """Whether it uses more than it may, or will in so many seconds if it grows on as it did."""
        soon = next(seen for seen in self._seen if self._seen[-1][0] - seen[0] <= _SOON_S)
        return self.now + max(self._growth(self._seen[0]), self._growth(soon)) * seconds >= self._ceiling

    def _growth(self, since: tuple[float, int]) -> float:
        """Bytes a second since then; 0 for a process that shrinks."""
        at, used = self._seen[-1]
        return max(0.0, (used - since[1]) / (at - since[0])) if at > since[0] else 0.0
