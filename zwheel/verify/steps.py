"""Finds where the server's clock was set back in the course of a history, and orders what happened by a time that was not.

Each answered call tells by how much the server's clock was ahead of its machine's monotonic clock: an amount between two
bounds, since the script ran between asking and answer. When the bounds of one call lie below those of the calls before
it, the server's clock was set back. All times after that are read as so much later: they rise on, and what is compared
with a fire time takes the shift off again.

Example: a claim at 10:00:09 is followed, a second later, by a complete at 10:00:02. It is read as 10:00:10, shift 8 s.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

#: A clock that is steered, or that runs fast, may move by this much and was not set, µs.
LEAST_US = 500_000

#: Two clocks may drift apart by this much unnoticed, µs.
_DRIFT_US = 1_000

Sample = tuple[int, int, int]
"""Of one answered call: the monotonic clock at its asking and at its answer, and the server's clock, µs."""


@dataclass(slots=True)
class _Epoch:
    """A time in which the server's clock ran on."""

    since: int
    """The monotonic clock at its first answer, µs."""
    low: int
    high: int
    """Bounds of the server's clock less the monotonic one, µs."""
    shift: int
    """How far the clock was set back before it, in all, µs."""


class Steps:
    """Those of the server's clock, as one machine saw them."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._epochs: list[_Epoch] = []
        for asked, answered, us in sorted(samples, key=lambda sample: sample[1]):
            low, high = us - answered, us - asked
            last = self._epochs[-1] if self._epochs else None
            if last is None or low > last.high + LEAST_US:
                if last is not None and asked < last.since and len(self._epochs) > 1:
                    continue  # it ran before the last step, and was answered after it
                self._epochs.append(_Epoch(answered, low, high, 0 if last is None else last.shift))
            elif high < last.low - LEAST_US:
                # As much as it can have been: what came after it is never read as earlier than what came before.
                self._epochs.append(_Epoch(answered, low, high, last.shift + last.high - low))
            elif max(low, last.low) <= min(high, last.high):
                last.low, last.high = max(low, last.low), min(high, last.high)
            else:
                last.low, last.high = low, high  # the clocks have drifted apart

    @property
    def back_us(self) -> int:
        """How far the clock was set back in all, µs."""
        return self._epochs[-1].shift if self._epochs else 0

    @property
    def backs(self) -> list[int]:
        """When it was set back, by the time that rises on, µs."""
        ends = [e.since + e.low + e.shift for e in self._epochs]
        return [at for at, a, b in zip(ends[1:], self._epochs, self._epochs[1:], strict=False) if b.shift > a.shift]

    def shift(self, asked: int, answered: int, us: int) -> int:
        """By how much a time that the server told is to be read as later, µs."""
        low, high = us - answered, us - asked
        fitting = [e for e in self._epochs if low <= e.high + LEAST_US // 2 and high >= e.low - LEAST_US // 2]
        return self._at(answered, fitting or self._epochs).shift

    def now(self, mono: int) -> tuple[int, int, int]:
        """The time that rises on at a moment of the monotonic clock, by how much it may be wrong, and the shift in it, µs."""
        epoch = self._at(mono, self._epochs)
        wrong = (epoch.high - epoch.low) // 2 + _DRIFT_US
        return mono + (epoch.low + epoch.high) // 2 + epoch.shift, wrong, epoch.shift

    def _at(self, mono: int, epochs: list[_Epoch]) -> _Epoch:
        return next((epoch for epoch in reversed(epochs) if epoch.since <= mono), epochs[0])
