"""Job ids: UUIDv7 in 26 characters of Crockford's base 32, so that ids sort by the time they were made."""

from __future__ import annotations

import os
import threading
import time

from zwheel.job import JobId

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]
_MASK62 = (1 << 62) - 1
_MASK12 = 0xFFF


class IdMaker:
    """Makes ids that rise strictly within a process, also when the clock steps back. Safe to share between threads.

    Layout (RFC 9562): 48 bits of ms, version 7, 12 bits and 62 bits of randomness; within one ms the
    74 random bits count up by a random step. 26 characters hold 130 bits, the two highest zero.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ms = -1
        self._random = 0
        self._pid = 0

    def __call__(self) -> JobId:
        """Make one id, about 1 µs."""
        ms = time.time_ns() // 1_000_000
        with self._lock:
            if ms > self._ms or self._pid != os.getpid():
                self._ms = ms = max(ms, self._ms)
                self._pid = os.getpid()
                self._random = int.from_bytes(os.urandom(9), "big")
            else:
                self._random += 1 + (self._random & 0xFFFF)
                if self._random >> 74:
                    self._ms += 1
                    self._random = int.from_bytes(os.urandom(9), "big")
                ms = self._ms
            number = (
                (ms << 80) | (7 << 76) | ((self._random >> 62 & _MASK12) << 64) | (2 << 62) | (self._random & _MASK62)
            )
        p = _PAIRS
        return JobId(
            p[number >> 120] + p[number >> 110 & 1023] + p[number >> 100 & 1023] + p[number >> 90 & 1023]
            + p[number >> 80 & 1023] + p[number >> 70 & 1023] + p[number >> 60 & 1023] + p[number >> 50 & 1023]
            + p[number >> 40 & 1023] + p[number >> 30 & 1023] + p[number >> 20 & 1023] + p[number >> 10 & 1023]
            + p[number & 1023]
        )  # fmt: skip


    def after_fork(self) -> None:
        """Start with a lock of its own: a thread that the child does not have may have held the parent's."""
        self._lock = threading.Lock()


new_job_id = IdMaker()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=new_job_id.after_fork)
