"""An estimate of the server's clock, refreshed by every reply that carries a reading of it."""

from __future__ import annotations

import time

_FRESH_NS = 10_000_000_000
#: How fast two clocks may part at worst, in parts per million: as much as a clock is steered by.
_DRIFT_PPM = 500


class ServerClock:
    """Tells the server's time in µs from the local monotonic clock. Never decides when a job is due: the server does.

    It keeps the reading with the shortest round trip of the last 10 s: the server read its clock somewhere within that
    trip, so a trip of 200 µs leaves an error of at most 200 µs. Before the first reading it takes the machine's clock.
    """

    __slots__ = ("_offset_us", "_taken_ns", "_trip_ns")

    def __init__(self) -> None:
        self._offset_us = (time.time_ns() - time.monotonic_ns()) // 1000
        self._trip_ns: int | None = None
        self._taken_ns = 0

    def observe(self, server_us: int, sent_ns: int, received_ns: int) -> None:
        """Take in a reading: the server's µs, and the monotonic ns before sending and after receiving."""
        trip = received_ns - sent_ns
        if self._trip_ns is None or trip <= self._trip_ns or received_ns - self._taken_ns > _FRESH_NS:
            self._trip_ns = trip
            self._taken_ns = received_ns
            self._offset_us = server_us - (sent_ns + received_ns) // 2000

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
        """By how much the estimate may be wrong, µs: half the round trip, and what the clocks may drift apart since."""
        if self._trip_ns is None:
            return 1_000_000_000
        age_ns = time.monotonic_ns() - self._taken_ns
        return self._trip_ns // 2000 + age_ns * _DRIFT_PPM // 1_000_000_000 + 1

    @property
    def skew_ms(self) -> int:
        """Server minus this machine's wall clock, ms."""
        return (self._offset_us - (time.time_ns() - time.monotonic_ns()) // 1000) // 1000
