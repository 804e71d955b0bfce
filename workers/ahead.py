"""Jobs of a precise queue, claimed a few ms ahead of their time: each is held here until the server's clock surely shows it.

The worker knows the server's clock only within a bound, so a job starts when the earliest time that it may be there is
the fire time: late by twice the bound at the most, and never early. A bound that is too large for that is no help: then
nothing is claimed ahead.
"""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count
from typing import Generic, TypeVar

from zwheel.calls.claim import AHEAD_MS
from zwheel.calls.clock import ServerClock

from .claims import Claim

T = TypeVar("T")
#: With a larger doubt about the server's clock nothing is claimed ahead, µs.
_MOST_DOUBT_US = 1_000
#: A time that is further away than this came from a clock that was wrong when the job was claimed, µs.
_FAR_US = 20 * AHEAD_MS * 1000


def ahead_ms(clock: ServerClock) -> int:
    """How far ahead of their time jobs may be claimed now, ms."""
    return AHEAD_MS if clock.error_us() <= _MOST_DOUBT_US else 0


class Ahead(Generic[T]):
    """Those of one worker, each with what its owner needs to start it. Does no I/O and does not wait."""

    def __init__(self, clock: ServerClock) -> None:
        self._clock = clock
        self._held: list[tuple[int, int, T]] = []
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, claim: Claim, entry: T) -> None:
        """Keep one until its time."""
        heappush(self._held, (claim.fire_at_ms * 1000, next(self._numbers), entry))

    def due(self) -> list[T]:
        """Take out those whose time has surely come, in the order of their times."""
        until = self._clock.now_us() - self._clock.error_us()
        taken = []
        while self._held and self._held[0][0] <= until:
            taken.append(heappop(self._held)[2])
        return taken

    def far(self) -> list[T]:
        """Take out those whose time is far away, since the server's clock was set back: they go back."""
        until = self._clock.now_us() + _FAR_US
        far = [held for held in self._held if held[0] > until]
        if far:
            self._held = sorted(held for held in self._held if held[0] <= until)
        return [entry for _, _, entry in far]

    def all(self) -> list[T]:
        """Take out all."""
        held, self._held = self._held, []
        return [entry for _, _, entry in held]

    @property
    def rest_s(self) -> float | None:
        """How long until the first one may start, seconds; None when there is none."""
        if not self._held:
            return None
        return max(0.0, (self._held[0][0] - self._clock.now_us() + self._clock.error_us()) / 1e6)
