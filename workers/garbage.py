"""Collects garbage while nothing is about to fire, so that it is not done in the ms in which a job is due.

A collection stops the whole process: tens of ms where much was allocated since the last one. Python begins it in the
middle of whatever allocates, which in a worker is mostly the start of jobs. The youngest objects are the many.
"""

from __future__ import annotations

import gc

#: With less time than this before the next fire time nothing is collected, seconds.
_QUIET_S = 0.1
#: After so many small collections of Python's own; it would begin a larger one after 10.
_AFTER = 4


def settle_in() -> None:
    """Leave out of every later collection what is there when a worker process starts: it stays."""
    gc.collect()
    gc.freeze()


def collect_young(left_s: float) -> None:
    """Collect the younger objects if enough of them came and there are `left_s` seconds until something fires."""
    if left_s >= _QUIET_S and gc.isenabled() and gc.get_count()[1] >= _AFTER:
        gc.collect(1)
