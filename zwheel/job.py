"""The nouns: states, reasons, and what a person or a program reads about a job."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NewType

from zwheel.errors import InvalidInput
from zwheel.times import to_datetime

JobId = NewType("JobId", str)
QueueName = NewType("QueueName", str)
WorkerId = NewType("WorkerId", str)

UNREADABLE = "(unreadable)"
"""The task of a job whose record this version cannot read."""
DEFAULT_QUEUE = QueueName("default")


class JobState(StrEnum):
    """Where a job is. "Due" is not a state: it is a scheduled job whose time has come."""

    SCHEDULED = "scheduled"
    """On the wheel; claim moves it to processing, cancel to cancelled."""
    PROCESSING = "processing"
    """Claimed under a lease; complete, retry, bury and release by its holder move it on, or reap when the lease ran out."""
    DONE = "done"
    """Ended well; kept as a tombstone until its `keep` time is over."""
    DEAD = "dead"
    """Will not run again unless a person redrives it; the last error says why."""
    CANCELLED = "cancelled"
    """Cancelled before it started, or while it ran; kept as a tombstone for a while. Its id is free for a new job."""

    @property
    def terminal(self) -> bool:
        """Whether a job has ended: a redrive moves it on when it is dead, else only a new job of its id takes its place."""
        return self in (JobState.DONE, JobState.DEAD, JobState.CANCELLED)


class Reason(StrEnum):
    """Why an attempt ended badly, and so why a job is dead."""

    ERROR = "error"
    """The task raised; dead when this was the last attempt."""
    TIMEOUT = "timeout"
    """The task ran longer than its timeout; dead when this was the last attempt."""
    LEASE_EXPIRED = "lease_expired"
    """Its worker died or lost contact; counted as an attempt by the reaper."""
    DISCARDED = "discarded"
    """The task raised Discard, or an exception of a give-up type."""
    UNKNOWN_TASK = "unknown_task"
    """No worker knew the task, or was allowed to run the command, within `unknown_ttl`."""
    UNDECODABLE = "undecodable"
    """The stored body or record cannot be read."""
    MISSED = "missed"
    """An occurrence that no worker started in time, whose schedule is gone or cannot be read here."""
    BAD_ARGUMENTS = "bad_arguments"
    """The arguments do not fit the task's signature."""
    EXPIRED = "expired"
    """No worker could start it before the time at which it expires."""


#: The attempt that ended so was run to its end by a living worker.
_RAN = frozenset({Reason.ERROR, Reason.TIMEOUT, Reason.DISCARDED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One attempt that ended badly. Written by the worker that ran it, or by the reaper when that worker vanished."""

    at_ms: int
    """When, ms since the epoch, by the server's clock."""
    attempt: int
    """Which attempt, counted from 1."""
    reason: Reason | str
    """Why; an unknown word from a newer version stays a plain string."""
    kind: str = ""
    """The exception's class name; empty when none was raised."""
    message: str = ""
    """The exception's text, shortened, control characters escaped."""
    traceback: str = ""
    """The last frames, shortened; empty when none."""
    worker: str = ""
    """The worker that held the job."""
    claimed_ms: int | None = None
    """When that worker had claimed it, by its token; only for a lease that ran out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What Redis holds about one job at the moment it was read. A snapshot: it does no I/O and never changes."""

    id: JobId
    queue: QueueName
    task: str
    state: JobState
    attempt: int
    """How often it has been claimed; crashes count, a release does not. 0 before the first claim."""
    max_attempts: int
    """After this many attempts it is dead. `retries` + 1."""
    fire_at_ms: int
    """When it becomes (or became) due, ms since the epoch, UTC; moved by each retry."""
    token: int
    """The fencing token of the last claim; before the first, when it was enqueued, in µs since the epoch."""
    worker: WorkerId | None
    """Who holds or last held it; None before the first claim."""
    keep_ms: int
    """How long the tombstone stays after the job ended, ms; 0: not at all."""
    dedup: str | None
    """Digest of its dedup key, None without one."""
    failures: tuple[Failure, ...] = ()
    """The last failures, oldest first; bounded."""
    body: bytes = field(default=b"", repr=False)
    """The encoded arguments; empty in a tombstone."""
    bytes_apart: int = 0
    """How long its body is where Redis keeps it apart from the job's record, bytes; 0 for a small body, and a tombstone's.
    `body` is shorter when it was not read, or is gone from Redis."""
    ended_at_ms: int | None = None
    """When it was done, died or was cancelled, by the server's clock; None for a living job."""
    kept_until_ms: int | None = None
    """Until when the tombstone of a job that is done or cancelled can be read; None for any other."""
    cancel_asked_ms: int | None = None
    """When it was asked to cancel the job while it ran, by the server's clock; None: nobody asked for that."""
    lease_until_ms: int | None = None
    """When the lease of a processing job ends; None otherwise or when not looked up."""

    @property
    def fire_at(self) -> datetime:
        """The fire time as an aware UTC datetime."""
        return to_datetime(self.fire_at_ms)

    @property
    def unreadable(self) -> str:
        """Why this version cannot read its record; '' when it can. Then only its id, queue and state say anything."""
        return self.failures[-1].message if self.task == UNREADABLE and self.failures else ""

    @property
    def ran_ms(self) -> int | None:
        """How long its last attempt took, ms, from its claim until Redis knew its end; None when it did not end itself."""
        if self.state is JobState.DONE:
            end = self.ended_at_ms
        elif self.state is JobState.DEAD and self.failures and self.failures[-1].reason in _RAN:
            end = self.failures[-1].at_ms
        else:
            return None
        return None if end is None else max(0, end - self.token // 1000)

    @property
    def reason(self) -> str | None:
        """Why a dead job is dead; None for any other."""
        if self.state is not JobState.DEAD:
            return None
        return str(self.failures[-1].reason) if self.failures else None


_DURABLE = re.compile(r"memory|fsynced|replicated\(([1-9]\d?)\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Durability:
    """How safely a job is stored: what an enqueue asks for, and what its server confirmed."""

    replicas: int = 0
    """How many replicas have it, in memory."""
    fsynced: bool = False
    """Whether it is on the disk of the server that took it, in its append-only file."""

    @classmethod
    def of(cls, text: str) -> Durability:
        """Read `memory`, `fsynced` or `replicated(N)`. Raises: InvalidInput."""
        found = _DURABLE.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            raise InvalidInput(f"durable: {text!r} is none of memory, fsynced and replicated(N) with N from 1 to 99")
        return cls(replicas=int(found[1] or 0), fsynced=text == "fsynced")

    def __bool__(self) -> bool:
        return self.fsynced or self.replicas > 0

    def __or__(self, other: Durability) -> Durability:
        """What satisfies both."""
        return Durability(replicas=max(self.replicas, other.replicas), fsynced=self.fsynced or other.fsynced)

    def covers(self, asked: Durability) -> bool:
        """Whether it is at least as much as was asked for."""
        return self | asked == self

    def __str__(self) -> str:
        words = ["fsynced"] if self.fsynced else []
        return ", ".join([*words, f"replicated({self.replicas})"] if self.replicas else words) or "memory"


@dataclass(frozen=True, slots=True, kw_only=True)
class Enqueued:
    """The answer to an enqueue: which job now stands for it."""

    job_id: JobId
    """The new job, or the job that already held the id or the dedup key."""
    existed: bool
    """False when this call created the job."""
    queue: QueueName
    state: JobState = JobState.SCHEDULED
    """The state of that job at that moment."""
    fire_at_ms: int
    """When it is (or was) due, ms since the epoch."""
    replaced: bool = False
    """Whether an ended job of this id gave way to it: a cancelled job, or with `replace` a job that was done or dead."""
    receipt: Durability | None = None
    """How safely the job is stored, as the server confirmed it; None: nobody asked (`durable`)."""

    @property
    def fire_at(self) -> datetime:
        """The fire time as an aware UTC datetime."""
        return to_datetime(self.fire_at_ms)


class CancelOutcome(StrEnum):
    """What a cancel met: one of these is certain."""

    CANCELLED = "cancelled"
    """It had not started and never will, or was cancelled before."""
    CANCEL_REQUESTED = "cancel_requested"
    """A worker holds it, and hears of it within a second. The job ends as cancelled, or as done; it is not tried again."""
    TOO_LATE = "too_late"
    """It is done or dead."""
    UNKNOWN = "unknown"
    """No such job, or not any more."""


class RescheduleOutcome(StrEnum):
    """What a reschedule met."""

    RESCHEDULED = "rescheduled"
    RUNNING = "running"
    ENDED = "ended"
    MISSING = "missing"
