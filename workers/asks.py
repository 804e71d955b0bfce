"""Counts how often a process was asked to stop, however many signals one asking sends.

A service manager may send SIGTERM to every process of a unit while our own supervisor passes its signal on; a terminal
and a wrapper may send SIGINT and SIGTERM for one Ctrl-C. Each is one asking. A second one means: at once.

Example: SIGTERM to a supervisor and its two workers. Each worker hears it once by signal and once from the supervisor;
the larger of the two numbers counts, so that is one. When all of it happens again, it is two. SIGHUP asks once at the most:
of a terminal that closes, its shell and the system both say so.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable

#: Whether a terminal that closes asks too: not when the process was started to outlive it, as nohup does.
_HANGS_UP = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
#: The signals that ask a process to stop.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, *((signal.SIGHUP,) if _HANGS_UP else ()))
#: Different signals that arrive within so many seconds are one asking.
_TOGETHER_S = 1.0
#: How long cancelled jobs may take to end, seconds. A command gets 5 s between SIGTERM and SIGKILL.
CANCELLED_S = 6.5
#: How long a process may take to end after the second asking, seconds. A process that is stopped (SIGSTOP) is killed by its
#: supervisor half a second later, and it too has to be gone within 10 s, on a busy machine as well.
AT_ONCE_S = 8.5
#: The same after the first one, on top of the drain: to cancel what still runs, to sign off and to close.
_AFTER_DRAIN_S = CANCELLED_S + 5.0
#: A worker gives running jobs back when it is about to end. So long after that its process is gone, also when its renewer
#: had to kill it, ms.
GONE_MS = int(_AFTER_DRAIN_S * 1000) + 500


def time_left_s(count: int, drain_s: float) -> float:
    """How long a process that was asked `count` times may take to end, seconds."""
    return drain_s + _AFTER_DRAIN_S if count == 1 else AT_ONCE_S


class Asks:
    """What one process was asked. It takes no lock and logs nothing: a signal handler may use it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heard: Counter[int] = Counter()
        self._last = float("-inf")
        self._by_signal = 0
        self._by_parent = 0

    @property
    def count(self) -> int:
        """How often somebody asked."""
        return max(self._by_signal, self._by_parent)

    def signal(self, number: int) -> bool:
        """A signal arrived. Returns whether that is a new asking."""
        before, now = self.count, self._clock()
        if number == signal.SIGHUP and self._heard[number]:
            return False
        self._heard[number] += 1
        if self._heard[number] > self._by_signal or now - self._last > _TOGETHER_S:
            self._by_signal += 1
        self._last = now
        return self.count > before

    def parent(self) -> bool:
        """The parent asked over its line. Returns whether that is a new asking."""
        before = self.count
        self._by_parent += 1
        return self.count > before
