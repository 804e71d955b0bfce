"""What a producer asks for next, drawn from its seed: mostly quick jobs, and each of the others in its measure."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from zwheel import NewJob
from zwheel.client.registry import Registry

from .app import QUEUES

Draw = Callable[[random.Random], tuple[str, tuple[Any, ...]]]

#: Weight in a thousand, and what makes the task's name and arguments.
_MIX: tuple[tuple[float, Draw], ...] = (
    (860, lambda rng: ("quick", (rng.randrange(1_000_000),))),
    (50, lambda rng: ("nap", (rng.uniform(0.001, 0.05),))),
    (20, lambda rng: ("nap", (rng.uniform(0.3, 1.5),))),
    (2, lambda rng: ("nap", (rng.uniform(2.5, 5.0),))),
    (25, lambda rng: ("thread", (rng.uniform(0.0, 0.01),))),
    (1, lambda rng: ("thread", (rng.uniform(0.2, 2.5),))),
    (12, lambda rng: ("flaky", (rng.randrange(2, 5),))),
    (6, lambda rng: ("again", (rng.uniform(0.0, 1.0),))),
    (5, lambda rng: ("failing", ("no " * rng.randrange(1, 20),))),
    (3, lambda rng: ("discarded", ())),
    (2, lambda rng: ("given_up", ("key",))),
    (2, lambda rng: ("overdue", ())),
    (1, lambda rng: ("overdue_thread", ())),
    (2, lambda rng: ("blocking", (rng.uniform(0.05, 0.2),))),
    (0.05, lambda rng: ("blocking", (rng.uniform(2.2, 3.0),))),
    (2, lambda rng: ("nobody.knows.it", (1, 2))),
    (1, lambda rng: ("quick", ("one", "too", "many"))),
    (0.15, lambda rng: ("crash", ())),
)
#: The part of all jobs that has a large body.
_LARGE = 0.03
_WEIGHTS = [weight for weight, _ in _MIX]
_DRAWS = [make for _, make in _MIX]


class Maker:
    """Makes the jobs of one producer."""

    def __init__(self, wheel: Registry, rng: random.Random, run: str) -> None:
        """run: part of the ids that all producers of a run choose from."""
        self._wheel = wheel
        self._rng = rng
        self._run = run
        #: Chosen ids move on with this number, which producers share by counting seconds.
        self.turn = 0

    def plain(self, count: int, queue: str | None = None) -> list[NewJob]:
        """Make jobs that are due now."""
        queue = queue or self._rng.choice(QUEUES)
        return [self._job(name, args, queue) for name, args in self._drawn(count)]

    def mixed(self, count: int) -> list[NewJob]:
        """Make jobs of several queues, some due in the next seconds."""
        jobs = []
        for name, args in self._drawn(count):
            delay = self._rng.choice((None, 0, self._rng.uniform(0, 0.05), self._rng.uniform(0.2, 4.0)))
            jobs.append(self._job(name, args, self._rng.choice(QUEUES), delay=delay))
        return jobs

    def delayed(self, count: int) -> list[NewJob]:
        """Make jobs for the next seconds, for `cancel` and `reschedule` to find."""
        return [
            self._job(name, args, self._rng.choice(QUEUES), delay=self._rng.uniform(0.3, 5.0))
            for name, args in self._drawn(count)
        ]

    def chosen(self) -> NewJob:
        """Make a job whose id others choose too, and that comes again after it ended."""
        ((name, args),) = self._drawn(1)
        number = self.turn * 4 + self._rng.randrange(40)
        keep = self._rng.choice((None, 0.5, 3))
        delay = self._rng.choice((None, self._rng.uniform(0, 2)))
        # Now and then in the place of a job that is done or dead.
        place = {"id": f"{self._run}-{number}", "replace": self._rng.random() < 0.3}
        return self._job(name, args, QUEUES[number % 3], keep=keep, delay=delay, **place)

    def unique(self) -> NewJob:
        """Make a job under a dedup key that others use too."""
        ((name, args),) = self._drawn(1)
        within = self._rng.choice((None, 0.3, 2.0))
        key = f"customer {self._rng.randrange(60)}"
        return self._job(
            name, args, self._rng.choice(QUEUES), dedup=key, within=within, delay=self._rng.choice((None, 0.5))
        )

    def _drawn(self, count: int) -> list[tuple[str, tuple[Any, ...]]]:
        return [make(self._rng) for make in self._rng.choices(_DRAWS, _WEIGHTS, k=count)]

    def _job(self, name: str, args: tuple[Any, ...], queue: str, **options: Any) -> NewJob:
        retries = 1 if name in ("crash", "failing", "overdue", "overdue_thread") else 25
        if self._rng.random() < _LARGE:
            # It does not compress, so the body lies apart from the record.
            options["headers"] = {"filler": self._rng.randbytes(self._rng.choice((700, 2_000, 20_000))).hex()}
        return self._wheel.new_job(name, args=args, queue=queue, retries=retries, **options)
