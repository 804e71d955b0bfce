"""Collects garbage while nothing is about to fire, so that it is not done in the ms in which a job is due.

A collection stops the whole process: tens of ms where much was allocated since the last one. Python begins it in the
middle of whatever allocates, which in a worker is mostly the start of jobs.
"""

from __future__ import annotations

import gc
import time

#: With less time than this before the next fire time nothing is collected, seconds.
_QUIET_S = 0.1
#: Collected are the younger objects, and all, once Python itself has come so far towards doing it; it does so after 10.
_YOUNG_AFTER, _ALL_AFTER = 4, 8
#: For collecting all there must be so many times the time that it took last.
_MARGIN = 8


class Garbage:
    """What a process knows of its collections. Until it has settled in, all of it is collected by Python alone."""

    def __init__(self) -> None:
        self.all_s: float | None = None
        """How long it took last to collect all, seconds."""

    def settle_in(self) -> None:
        """Leave out of every later collection what is there when a worker process starts: it stays."""
        self._collect_all()
        gc.freeze()

    def tidy(self, left_s: float) -> None:
        """Collect if enough came and there is time until something fires, `left_s` seconds from now."""
        if left_s < _QUIET_S or not gc.isenabled():
            return
        _, young, old = gc.get_count()
        if old >= _ALL_AFTER and self.all_s is not None and left_s >= _MARGIN * self.all_s:
            self._collect_all()
        elif young >= _YOUNG_AFTER:
            gc.collect(1)

    def _collect_all(self) -> None:
        began = time.monotonic()
        gc.collect()
        self.all_s = time.monotonic() - began


GARBAGE = Garbage()
