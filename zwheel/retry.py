"""When a failed attempt runs again: the policy of a task, and the three words a task can say itself."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta

from zwheel.errors import InvalidInput
from zwheel.times import duration_ms


class Retry(Exception):
    """Raise it in a task to run the job again: after `delay`, or by the task's backoff. The attempt counts."""

    def __init__(self, message: str = "", *, delay: timedelta | float | None = None) -> None:
        super().__init__(message)
        self.delay_ms = None if delay is None else duration_ms(delay, what="delay")


class Snooze(Exception):
    """Raise it in a task to run the job again after `delay`, as if it had not begun: the attempt does not count.

    For work whose time has not come: a file that is not there yet, a partner that is closed. A job may snooze without end, and at
    least for 0.1 s at a time.
    """

    def __init__(self, delay: timedelta | float, message: str = "") -> None:
        super().__init__(message)
        self.delay_ms = duration_ms(delay, what="delay")


class Discard(Exception):
    """Raise it in a task to end the job as dead now, whatever attempts are left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Exponential backoff with full jitter: the delay after attempt n is uniform in [0, min(longest, first·factor^(n-1))].

    Example, with the defaults (1 s, 3, 1 h): up to 1 s, 3 s, 9 s, 27 s, 81 s, ... 1 h.
    Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """

    first: timedelta | float = 1.0
    """The ceiling after the first attempt; timedelta or seconds."""
    factor: float = 3.0
    longest: timedelta | float = 3600.0
    """The highest ceiling; timedelta or seconds."""

    def __post_init__(self) -> None:
        if not 1 <= self.factor <= 100:
            raise InvalidInput(f"backoff: factor {self.factor!r} is not between 1 and 100")
        duration_ms(self.first, what="backoff: first")
        duration_ms(self.longest, what="backoff: longest")

    def ceiling_ms(self, attempt: int) -> int:
        """The longest delay after attempt `attempt` (1, 2, ...), ms."""
        first, longest = duration_ms(self.first), duration_ms(self.longest)
        exponent = min(attempt - 1, 64)
        return int(min(longest, first * self.factor**exponent))

    def delay_ms(self, attempt: int, rng: random.Random | None = None) -> int:
        """Draw the delay after attempt `attempt`, ms."""
        ceiling = self.ceiling_ms(attempt)
        return (rng or random).randint(0, ceiling)
