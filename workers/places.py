"""The places of `process=True` jobs in a worker: as many as processes may run there at a time.

A job that waits for a place lends its slot to others meanwhile: a queue of jobs that need a process keeps none waiting that
need none. It waits for a second at the most, and so do no more than there are slots; then it goes back, for other workers, and
comes again one after the other as places get free here.

Example: two places, ten slots, 400 jobs that hold a CPU for a second each, and one that sends a mail behind them. Two run,
ten wait, and the rest goes back as soon as it is claimed, so the mail is sent in the same moment.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

from .claims import Slots

#: What goes back comes again neither sooner nor later than that, and so far apart as long as no pace is known, seconds.
_SOONEST_S, _LATEST_S, _APART_S = 0.5, 10.0, 0.001


class Places:
    """The places of one worker, and who waits for one."""

    def __init__(self, most: int, slots: Slots, lent: Callable[[], None]) -> None:
        """lent: called when a slot was lent, to start what waits for one."""
        self._free = most
        self._slots = slots
        self._lent = lent
        self._waiting: deque[asyncio.Future[None]] = deque()
        #: How far apart places get free while others wait for them, and when one did last, seconds.
        self._apart = _APART_S
        self._left = 0.0
        #: When the next that goes back comes again, monotonic seconds.
        self._next = 0.0

    async def take(self, within_s: float) -> bool:
        """Take a place, waiting that long for it. Give it back with `leave`."""
        if self._free:
            self._free -= 1
            return True
        if len(self._waiting) >= self._slots.concurrency:
            return False
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(mine)
        self._slots.lend()
        try:
            self._lent()
            await asyncio.wait([mine], timeout=within_s)
        except BaseException:
            if mine.done():
                self.leave()
            raise
        finally:
            if not mine.done():
                self._waiting.remove(mine)
                self._slots.take_back()
        return mine.done()

    def leave(self) -> None:
        """Give a place back: to who waits longest, slot and all, before anything else can start in it."""
        if not self._waiting:
            self._left = 0.0
            self._free += 1
            return
        now = time.monotonic()
        if self._left:
            self._apart = max(_APART_S, (3 * self._apart + now - self._left) / 4)
        self._left = now
        self._slots.take_back()
        self._waiting.popleft().set_result(None)

    def away_ms(self) -> int:
        """After how long a job that found no place comes again, ms."""
        now = time.monotonic()
        self._next = min(max(self._next + self._apart, now + _SOONEST_S), now + _LATEST_S)
        return int((self._next - now) * 1000)
