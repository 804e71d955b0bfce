"""The places of `process=True` jobs in a worker: as many as processes may run there at a time.

A job that waits for a place lends its slot to others meanwhile: a queue of jobs that need a process keeps none waiting that
need none. It waits for a second at the most, and so do no more than there are slots, or than the places take in a quarter of
a second; then it goes back, for other workers, and comes again as places get free here.

A worker in which too many jobs wait leaves its role to another worker for a moment, which may have a free process: the
worker that sleeps until the next job is due takes all due jobs.

Example: two places, ten slots, 400 jobs that hold a CPU for a second each, and one that sends a mail behind them. Two run,
ten wait, and the rest goes back as soon as it is claimed, so the mail is sent in the same moment.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable

from .claims import Slots

#: How long a job waits here for a place, seconds.
_PATIENCE_S = 1.0
#: A job that goes back comes again neither sooner nor later than that, seconds. Such jobs come in groups, which one claim each takes.
_SOONEST_S, _LATEST_S, _GROUP_S = 0.02, 10.0, 0.02
#: How long a job that goes back stays away at first, and how far apart such jobs come again, while no pace is known, seconds.
_AT_FIRST_S, _APART_S = 0.25, 0.0005
#: As many may wait here as the places take in that time, seconds, where that is more than there are slots; never more than so.
_STOCK_S, _MOST = 0.25, 1000
#: The pace is counted anew in spans of that length, seconds, and known after so many places within one.
_SPAN_S, _ENOUGH = 0.25, 8


class Places:
    """The places of one worker, and who waits for one."""

    def __init__(self, most: int, slots: Slots, lent: Callable[[], None]) -> None:
        """lent: called when a slot was lent, to start the jobs that wait for one."""
        self._free = most
        self._slots = slots
        self._lent = lent
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._pace = _Pace()
        #: When the next that goes back comes again, monotonic seconds.
        self._next = 0.0

    async def take(self, within_s: float = _PATIENCE_S) -> bool:
        """Take a place, waiting that long for it. Give it back with `leave`."""
        if self._free:
            self._free -= 1
            return True
        if len(self._waiting) >= self._most():
            self._slots.crowded = True
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
            self._pace.pause()
            self._free += 1
            return
        self._pace.count()
        self._slots.crowded = False
        self._slots.take_back()
        self._waiting.popleft().set_result(None)

    def _most(self) -> int:
        """How many may wait: none for long, and enough to be there while the next come back."""
        apart = self._pace.apart
        return max(self._slots.concurrency, min(int(_STOCK_S / apart), _MOST) if apart else 0)

    def away_ms(self) -> int:
        """After how long a job that found no place comes again, ms: when half of the jobs that wait here now have a place.

        Jobs come again twice as fast as places get free: another worker may have some, and a job that comes too soon costs less
        than a process that has nothing to do.
        """
        now = time.monotonic()
        apart = self._pace.apart
        soonest = min(max(_SOONEST_S, len(self._waiting) * apart / 2), _PATIENCE_S / 2) if apart else _AT_FIRST_S
        self._next = min(max(self._next + (apart / 2 or _APART_S), now + soonest), now + _LATEST_S)
        return int(min(math.ceil(self._next / _GROUP_S) * _GROUP_S - now, _LATEST_S) * 1000)


class _Pace:
    """How far apart places get free while jobs wait for them."""

    def __init__(self) -> None:
        #: What the last span of counting gave, seconds; 0: there was none.
        self._before = 0.0
        #: When this span began, monotonic seconds, 0: it has not; and how many got free since.
        self._since = 0.0
        self._count = 0

    def count(self) -> None:
        """A place got free, and was waited for."""
        now = time.monotonic()
        if self._since:
            self._count += 1
            if now - self._since < _SPAN_S:
                return
            self._before = (now - self._since) / self._count
        self._since, self._count = now, 0

    def pause(self) -> None:
        """A place got free, and nobody waited for it."""
        self._since, self._count = 0.0, 0

    @property
    def apart(self) -> float:
        """Seconds from one to the next; 0: not known.

        The faster of this span and the last one, as long as this one is no longer than it should be: that all stood still
        for a moment tells nothing.
        """
        if not self._since:
            return self._before
        lasts = time.monotonic() - self._since
        now = lasts / (self._count + 1)
        if lasts > _SPAN_S:
            return now
        if self._count < _ENOUGH:
            return self._before
        return min(now, self._before) if self._before else now
