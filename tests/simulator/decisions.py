"""Every choice of a run: drawn from a seed and written down, or taken from a list; and how a list is made shorter."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
#: The choices of one run, a list for each step; the first is the set-up. What is missing counts as 0: the plain choice.
Schedule = list[list[int]]


class Decisions:
    """Where all chance comes from. With a schedule it repeats that run, without one it draws from the seed."""

    def __init__(self, seed: int, schedule: Schedule | None = None) -> None:
        self._random = random.Random(seed)
        self._given = schedule
        self._at = 0
        self.taken: Schedule = [[]]

    def next_step(self) -> None:
        """What is chosen from here on belongs to another step."""
        self.taken.append([])
        self._at = 0

    @property
    def left(self) -> int:
        """How many steps a given schedule still has; one that is drawn has no end."""
        return 1_000_000 if self._given is None else len(self._given) - len(self.taken)

    def choose(self, count: int) -> int:
        """Choose a number from 0 to count - 1."""
        if count < 2:
            return 0
        if self._given is None:
            value = self._random.randrange(count)
        else:
            value = self._next() % count
        self.taken[-1].append(value)
        return value

    def chance(self, probability: float) -> bool:
        """Whether something happens that happens this often; a schedule without a word about it says no."""
        if probability <= 0:
            return False
        value = int(self._random.random() < probability) if self._given is None else self._next() & 1
        self.taken[-1].append(value)
        return bool(value)

    def pick(self, items: Sequence[T]) -> T:
        """Choose one; the first is the plain one."""
        return items[self.choose(len(items))]

    def _next(self) -> int:
        assert self._given is not None
        step = len(self.taken) - 1
        values = self._given[step] if step < len(self._given) else []
        value = values[self._at] if self._at < len(values) else 0
        self._at += 1
        return value


def shrink(schedule: Schedule, fails: Callable[[Schedule], Schedule | None], seconds: float) -> Schedule:
    """Make a failing schedule shorter while it fails: drop turns and blocks of steps, and set choices to 0.

    fails: runs a schedule; gives what of it was used when it fails in the same way, else None.
    """
    deadline = time.monotonic() + seconds
    best = schedule

    def better(candidate: Schedule) -> bool:
        nonlocal best
        used = fails(candidate)
        if used is None or _weight(used) >= _weight(best):
            return False
        best = used
        return True

    improved = True
    while improved and time.monotonic() < deadline:
        # Who takes part is in the set-up, and whose turn it is the first choice of a step.
        improved = _set_to_zero(lambda: best, better, deadline, 1)
        improved = _drop_turns(lambda: best, better, deadline) or improved
        improved = _drop_blocks(lambda: best, better, deadline) or improved
        improved = _set_to_zero(lambda: best, better, deadline, len(best)) or improved
    return best


def _weight(schedule: Schedule) -> tuple[int, int, int]:
    return len(schedule), sum(value != 0 for step in schedule for value in step), sum(map(len, schedule))


def _drop_turns(best: Callable[[], Schedule], better: Callable[[Schedule], bool], deadline: float) -> bool:
    improved = False
    for turn in sorted({step[0] for step in best()[1:] if step}):
        if time.monotonic() < deadline:
            now = best()
            improved = better(now[:1] + [step for step in now[1:] if step[:1] != [turn]]) or improved
    return improved


def _drop_blocks(best: Callable[[], Schedule], better: Callable[[Schedule], bool], deadline: float) -> bool:
    improved = False
    size = max(1, len(best()) // 2)
    while size and time.monotonic() < deadline:
        start = len(best()) - size
        while start >= 1 and time.monotonic() < deadline:
            now = best()
            improved = better(now[:start] + now[start + size :]) or improved
            start -= size
        size //= 2
    return improved


def _set_to_zero(best: Callable[[], Schedule], better: Callable[[Schedule], bool], deadline: float, steps: int) -> bool:
    improved = False
    for number in range(steps):
        if time.monotonic() > deadline or number >= len(best()):
            break
        if any(best()[number]) and better(_with(best(), number, [])):
            improved = True
            continue
        for at in range(len(best()[number])):
            if time.monotonic() > deadline or number >= len(best()) or at >= len(best()[number]):
                break
            if best()[number][at]:
                values = list(best()[number])
                values[at] = 0
                improved = better(_with(best(), number, values)) or improved
    return improved


def _with(schedule: Schedule, number: int, values: list[int]) -> Schedule:
    return [*schedule[:number], values, *schedule[number + 1 :]]
