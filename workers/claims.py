"""What a worker holds: one Claim a job, and the room that is left for more."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from enum import Enum, auto
from typing import Any

from zwheel.current import CurrentJob
from zwheel.job import JobId, JobState, QueueName
from zwheel.keys import queue_of
from zwheel.record import HEADER_BYTES


class Stop(Enum):
    """Why a running job is cancelled."""

    TIMEOUT = auto()
    LOST = auto()
    """Redis said that others have it, or it was held for longer than any may be: whatever it does no longer counts."""
    SILENT = auto()
    """Redis was silent for so long that others may have it soon. Nobody said that they do: what becomes of it is told
    when Redis answers, and counts if its token is still the current one."""
    DRAIN = auto()
    """The worker stops: the job goes back unharmed."""
    CANCEL = auto()
    """Somebody asked to cancel it: it will not run again."""


class Claim:
    """One claimed job with its token and lease: what ends or extends a job, never a bare id."""

    __slots__ = (
        "asked_ms",
        "began_ns",
        "claimed_ns",
        "deadline_ns",
        "ended",
        "headers",
        "id",
        "leased_ns",
        "most_attempts",
        "previous_outcome",
        "queue",
        "raw",
        "returned",
        "running",
        "stop",
        "task",
        "task_name",
        "thread",
        "to_threads",
        "token",
    )

    def __init__(self, job_id: bytes, raw: bytes, queue: QueueName, leased_ns: int) -> None:
        self.id = job_id
        self.raw = raw
        #: The fencing token as Redis holds it: 16 digits.
        self.token = raw[21:37]
        #: The name of its shard: that of its queue, when the queue has no other shard.
        self.queue = queue
        #: Monotonic ns at which the lease was last known to begin: when the claim, or the renewal, was sent.
        self.leased_ns = leased_ns
        #: Monotonic ns at which it was claimed: how long a claim may last counts from here, whatever a clock does.
        self.claimed_ns = leased_ns
        #: The asyncio task that runs the job. `task` is set when it is started. `running` is set from its first step to its
        #: end: only then it can be cancelled.
        self.task: asyncio.Task[None] | None = None
        self.running: asyncio.Task[None] | None = None
        self.stop: Stop | None = None
        #: When it was last asked to cancel it, ms; 0: nobody asked.
        self.asked_ms = 0
        #: Whether its outcome is with the settler. The lease is renewed until Redis acknowledged the outcome.
        self.ended = False
        #: When its timeout is over, monotonic ns; 0: it has none, or has not started.
        self.deadline_ns = 0
        #: How its function ended in a thread: empty before that, else one element, the exception that it raised or None.
        self.returned: tuple[BaseException | None, ...] = ()
        #: Whether its function runs in a thread, where it cannot be stopped. A coroutine that it returns can be.
        self.thread = False
        #: The job's calls of `asyncio.to_thread`; None: it made none.
        self.to_threads: set[Future[Any]] | None = None
        self.task_name = ""
        #: After how many attempts its task says that it is dead, where the job does not say so; 0: it does.
        self.most_attempts = 0
        #: When its function was called, monotonic ns; 0: it was not.
        self.began_ns = 0
        self.headers: dict[str, str] = {}
        #: For an occurrence: the state of the previous occurrence when this one started.
        self.previous_outcome: JobState | None = None

    @property
    def attempt(self) -> int:
        """Which attempt this is, counted from 1."""
        return int(self.raw[2:6])

    @property
    def max_attempts(self) -> int:
        """After how many attempts the job is dead."""
        return self.most_attempts or int(self.raw[45:49])

    @property
    def fire_at_ms(self) -> int:
        """When the job was due, ms since the epoch."""
        return int(self.raw[6:21])

    @property
    def job_id(self) -> JobId:
        """The job's id as text."""
        return JobId(self.id.decode("utf-8", "backslashreplace"))

    @property
    def asked(self) -> bool:
        """Whether it was asked to cancel it."""
        return self.asked_ms > 0

    @property
    def plain(self) -> bool:
        """Whether the record has no fields beyond its header."""
        return self.raw[49:HEADER_BYTES] == b"00"

    @property
    def in_thread(self) -> bool:
        """Whether something of it runs in a thread, which nothing but the end of the process can stop."""
        return (self.thread and not self.returned) or bool(self.to_threads)

    def current(self) -> CurrentJob:
        """What the task sees of it."""
        return CurrentJob(
            id=self.job_id, task=self.task_name, queue=QueueName(queue_of(self.queue)), attempt=self.attempt,
            max_attempts=self.max_attempts, fire_at_ms=self.fire_at_ms, token=int(self.token), headers=self.headers,
            previous_outcome=self.previous_outcome,
        )  # fmt: skip

    def cancel(self, why: Stop) -> None:
        """Stop it, for this reason; the first reason stays, but that a person asked for it: a task may have caught that."""
        if self.stop is None or (self.stop is Stop.CANCEL and why is not Stop.CANCEL):
            self.stop = why
            if self.running is not None:
                self.running.cancel()


#: For how long, and how often at the most, a worker whose jobs wait for a process leaves due jobs to others, seconds.
_YIELD_S, _YIELDS_S = 0.03, 0.25
#: No more bytes of jobs than that are prefetched.
_PREFETCHED_BYTES = 1 << 18


class Slots:
    """How many jobs this process runs and holds, shared by its pollers."""

    def __init__(self, concurrency: int, prefetch: int, most_jobs: int = 0) -> None:
        """most_jobs: so many are taken in all; 0: without end."""
        self.concurrency = concurrency
        self._left = most_jobs or sys.maxsize
        self._most_prefetched = prefetch
        self.running = 0
        #: Claimed and not yet ended, running ones included, and places reserved by claims under way.
        self.held = 0
        self._reserved = 0
        #: How many jobs end in a second; how many ended since that was counted last, and when, monotonic seconds.
        self._pace = 0.0
        self._ended = 0
        self._since = 0.0
        self._prefetch = 0
        self._starved: dict[Callable[[], None], None] = {}
        #: Whether the last job that came found no place among the jobs that wait for a process.
        self.crowded = False
        self._closed = False
        self._yielded = 0.0

    def room(self) -> int:
        """How many more jobs may be claimed: up to the concurrency, and as many more as end within a round trip."""
        room = 0 if self._closed else self.concurrency + self._prefetch - self.held
        return min(room, self._left - self._reserved)

    @property
    def spent(self) -> bool:
        """Whether this worker took all jobs that it may take."""
        return self._left <= 0

    def share(self) -> int:
        """How many jobs the next claim may ask for: all that there is room for, and half of what may be held at the most.

        While one half is under way the other half runs. Claims of unequal size would stay so: each asks for as many jobs as
        ended during the claim before, and the worker is idle for the rest of the trip of each large one.
        """
        return min(self.room(), max(self.concurrency, (self.concurrency + self._prefetch + 1) // 2))

    def turn(self, now: float, trip_s: float, job_bytes: float = 0.0) -> None:
        """A claim was answered after `trip_s`: prefetch what two such round trips can run at the pace of the jobs.

        The pace is that of a time in which more jobs ended than there are slots. Jobs of one claim start together and end
        together: that ten ended within 5 ms does not say that they took 5 ms. Where eleven ended, one slot had two of them.

        Example: 110 jobs of a worker with 100 slots ended in 4 ms, and a claim takes 1.5 ms: 82 are prefetched. When jobs
        take seconds nothing is, so that no job waits here while another worker is idle, or is held by a worker that dies.
        Of large jobs few are: their answers come in many parts, between which jobs run, so their round trips seem long.
        """
        since = max(now - self._since, trip_s, 1e-6)
        if self._ended > self.concurrency:
            self._pace, self._ended = self._ended / since, 0
        else:
            self._pace = min(self._pace, (self._ended + 1) / since)
        if not self._ended:
            self._since = now
        self._prefetch = min(self._most_prefetched, int(2 * self._pace * trip_s))
        if job_bytes:
            self._prefetch = min(self._prefetch, int(_PREFETCHED_BYTES / job_bytes))

    def when_room(self, kick: Callable[[], None]) -> None:
        """Call `kick` once, as soon as there may be room again."""
        self._starved[kick] = None

    def reserve(self, places: int) -> None:
        """Keep places for a claim that is sent now."""
        self.held += places
        self._reserved += places

    def answered(self, places: int, taken: int = 0) -> None:
        """A claim that reserved places has taken so many: the others are free. Another poller may be waiting to know."""
        self.held -= places - taken
        self._reserved -= places
        self._left -= taken
        if places:
            self._feed()

    def full(self) -> bool:
        """Whether there will be no room before a job ends, even if the claims under way bring none."""
        return self.room() + self._reserved <= 0

    def yields(self) -> bool:
        """Have no room for a moment, where jobs wait here for a process: another worker may have one. Not again at once."""
        now = time.monotonic()
        if not self.crowded or now - self._yielded < _YIELDS_S:
            return False
        self._yielded = now
        self._closed = True
        asyncio.get_running_loop().call_later(_YIELD_S, self._open)
        return True

    def _open(self) -> None:
        self._closed = False
        self._feed()

    def lend(self) -> None:
        """A job that was started waits for something else: others may run in its slot, until `take_back`."""
        self.running -= 1
        self.held -= 1
        self._feed()

    def take_back(self) -> None:
        """That job goes on, or ends. There may be one more than the concurrency now, until the next ends."""
        self.running += 1
        self.held += 1

    def ended(self) -> None:
        """One claimed job ended or was given back."""
        self.held -= 1
        self._ended += 1
        self._feed()

    def _feed(self) -> None:
        if self._starved:
            waiting, self._starved = self._starved, {}
            for kick in waiting:
                kick()


Observer = Callable[[str, dict[str, Any]], None]
"""A function that is called with each event of a worker, for tests and for the history of a run; else there is none."""
