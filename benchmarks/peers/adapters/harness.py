"""What every adapter shares: what it is told, what it can do, and how its jobs are seen. Standard library only."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

#: The argument of every job: 100 bytes of text, as in the other benchmarks.
PAYLOAD = "x" * 100
#: Jobs that one bulk call takes.
BATCH = 1000
#: Jobs that a worker may run at a time, where the peer lets one choose; it is zwheel's default.
CONCURRENCY = 100


@dataclass(frozen=True)
class Spec:
    """One piece of work, as the measuring process describes it."""

    url: str
    jobs: int
    warm: int
    """Jobs that run before the clock starts."""
    note: str = ""
    """A path that ends in .note: there a worker notes how late each delayed job started, in .warm that it is warm, and in
    .took how long its jobs took."""
    first_ms: int = 0
    """The fire time of the first delayed job, Unix time."""
    rate: int = 100
    """Delayed jobs a second."""

    def dues(self) -> list[int]:
        """The fire times of the delayed jobs, Unix time in ms: one at a random place of each step."""
        chance = random.Random(1)
        step = 1000 / self.rate
        return [int(self.first_ms + (index + chance.random()) * step) for index in range(self.jobs)]


def clocks() -> tuple[float, float]:
    """Seconds on the clock, and of CPU time that this process has used with all its threads."""
    return time.perf_counter(), time.process_time()


def since(began: tuple[float, float]) -> dict[str, float]:
    """What has passed on both since then."""
    seconds, cpu = clocks()
    return {"seconds": seconds - began[0], "cpu": cpu - began[1]}


class Marks:
    """What a worker process notes: when it is warm, how long it took, and how late each delayed job started."""

    def __init__(self) -> None:
        self._counter = count(1)
        self._first = self._last = 0
        self._began = (0.0, 0.0)
        self._note = Path()

    def expect(self, spec: Spec) -> None:
        """Begin to count: `warm` jobs, then `jobs` whose time is taken."""
        self._first, self._last = spec.warm, spec.warm + spec.jobs
        self._note = Path(spec.note)

    def ran(self) -> None:
        """A job that does nothing has run. Threads may call it: `next` of a counter is one step."""
        number = next(self._counter)
        if number == self._first:
            self._began = clocks()
            self._write(".warm", "")
        elif number == self._last:
            self._write(".took", json.dumps(since(self._began)))

    def late(self, due_ms: int) -> None:
        """A delayed job starts: note how late, ms."""
        lateness = time.time_ns() / 1e6 - due_ms
        with self._note.open("a", encoding="ascii") as note:
            note.write(f"{lateness:.3f}\n")

    def _write(self, suffix: str, text: str) -> None:
        """Whole or not at all: another process waits for the file."""
        part = self._note.with_suffix(".part")
        part.write_text(text, encoding="ascii")
        os.replace(part, self._note.with_suffix(suffix))


marks = Marks()


class Adapter:
    """The same work by one peer. Peers with a blocking interface block in these methods: nothing else runs beside them."""

    has_bulk = True

    def __init__(self, spec: Spec) -> None:
        self.url = spec.url

    async def open(self) -> None:
        """Connect as a producer."""

    async def close(self) -> None:
        """Disconnect."""

    async def one(self, jobs: int) -> None:
        """Enqueue so many jobs, each call after the one before."""
        raise NotImplementedError

    async def bulk(self, jobs: int) -> None:
        """Enqueue so many jobs with the peer's call for many."""
        raise NotImplementedError

    async def at(self, dues: Sequence[int]) -> None:
        """Enqueue one delayed job for each fire time, in any way."""
        raise NotImplementedError

    def work(self) -> None:
        """Run one worker process until it is ended."""
        raise NotImplementedError


def batches(jobs: int) -> list[int]:
    """The sizes of the calls for many, which add up to `jobs`."""
    return [min(BATCH, jobs - first) for first in range(0, jobs, BATCH)]
