"""An estimate of the server's clock, refreshed by every reply that carries a reading of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

#: How fast two clocks may part at worst, in parts per million: as much as a clock is steered by.
_DRIFT_PPM = 500
#: For so long a reading that is less exact than those before it tells nothing: they drift by 50 µs, ns.
_FRESH_NS = 100_000_000
#: A reading that is off by more than this, µs, is a jump and no steering.
_JUMP_US = 500_000
#: By how much a machine's sleep and what its clock missed may differ, µs.
_SLEPT_US = 1_000_000
_BOOT = getattr(time, "CLOCK_BOOTTIME", None)


class _Known(NamedTuple):
    """What the readings so far say. One object, so that a thread that reads it never sees half of a change."""

    low_us: int
    """The server's clock minus the monotonic one, µs, is at least this..."""
    high_us: int
    """... and at most this."""
    taken_ns: int
    """When that was so, monotonic ns."""
    doubt_us: int
    """By how much the last reading contradicted those before it, µs; 0 once another one agreed with it."""


class ServerClock:
    """Tells the server's time in µs from the local monotonic clock. Never decides when a job is due: the server does.

    The server read its clock somewhere within a round trip, so each reading bounds the difference between the two
    clocks; what all readings allow is what is known. A trip of 200 µs leaves an error of at most 100 µs, and an answer
    that took 10 s changes nothing when more was known. A reading that cannot agree with the others is believed at once:
    the server's clock jumped, or this machine stood still. Before the first reading it takes the machine's clock.
    """

    __slots__ = ("_boot_us", "_jumped_ns", "_known", "_offset_us", "on_jump")

    def __init__(self) -> None:
        self._offset_us = (time.time_ns() - time.monotonic_ns()) // 1000
        self._known: _Known | None = None
        self._jumped_ns = 0
        self._boot_us = _slept_us()
        #: Called with how far the server's clock jumped, µs, in the thread that read the clock; None: nobody wants to know.
        self.on_jump: Callable[[int], None] | None = None

    def observe(self, server_us: int, sent_ns: int, received_ns: int) -> None:
        """Take in a reading: the server's µs, and the monotonic ns before sending and after receiving."""
        low = server_us - received_ns // 1000 - 1
        high = server_us - sent_ns // 1000 + 1
        known = self._known
        if known is not None:
            if (
                low <= known.low_us and high >= known.high_us and not known.doubt_us
                and received_ns - known.taken_ns < _FRESH_NS
            ):  # fmt: skip
                # The most frequent case: it agrees, and tells nothing more.
                return
            drift = (received_ns - known.taken_ns) * _DRIFT_PPM // 1_000_000_000
            drift = drift if drift > 0 else 0
            least, most = known.low_us - drift, known.high_us + drift
            if low > most or high < least:
                self._contradicted(low, high, sent_ns, received_ns, known)
                return
            low = low if low > least else least
            high = high if high < most else most
        self._known = _Known(low, high, received_ns, 0)
        self._offset_us = (low + high) // 2

    def _contradicted(self, low: int, high: int, sent_ns: int, received_ns: int, known: _Known) -> None:
        """A reading is out of the question by all that was known: believe it, and tell of a jump."""
        if sent_ns < self._jumped_ns:
            # Asked before the jump was seen and answered before it happened: another thread was faster.
            return
        by_us = (low + high - known.low_us - known.high_us) // 2
        slept, self._boot_us = _slept_us() - self._boot_us, _slept_us()
        here = slept > _SLEPT_US // 10 and abs(by_us - slept) <= _SLEPT_US
        if abs(by_us) > _JUMP_US and not here and self.on_jump is not None:
            # First this, and then the new estimate: whoever goes by that one can know of the jump.
            self.on_jump(by_us)
        self._jumped_ns = time.monotonic_ns()
        self._known = _Known(low, high, received_ns, abs(by_us))
        self._offset_us = (low + high) // 2

    def now_us(self) -> int:
        """The server's time, µs since the epoch, estimated."""
        return time.monotonic_ns() // 1000 + self._offset_us

    def now_ms(self) -> int:
        """The server's time, ms since the epoch, estimated."""
        return self.now_us() // 1000

    def seconds_until(self, server_ms: int) -> float:
        """How long until the server's clock shows `server_ms`; negative when it is past."""
        return (server_ms * 1000 - self.now_us()) / 1e6

    def error_us(self) -> int:
        """By how much the estimate may be wrong, µs: what the readings leave open, and what the clocks may drift apart since.

        After a reading that contradicted the others it is as much as they contradict each other, until one more agrees.
        """
        known = self._known
        if known is None:
            return 1_000_000_000
        age_ns = time.monotonic_ns() - known.taken_ns
        return (known.high_us - known.low_us) // 2 + age_ns * _DRIFT_PPM // 1_000_000_000 + known.doubt_us + 1


def _slept_us() -> int:
    """How long this machine slept since it was started, µs: the monotonic clock stands meanwhile. 0 where nobody tells."""
    return 0 if _BOOT is None else (time.clock_gettime_ns(_BOOT) - time.monotonic_ns()) // 1000
