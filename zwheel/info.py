"""What a person reads about queues, days and workers. Snapshots: they do no I/O and never change."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from zwheel.job import QueueName, WorkerId


class ReshardProgress(NamedTuple):
    """How far a queue is that is being cut into another number of shards."""

    moved: int
    """How many jobs this caller moved so far."""
    left: int
    """How many jobs still stand in the former shards."""
    running: int
    """How many of those run: they end where they are."""
    done: bool
    """Whether nothing is left there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueInfo:
    """How a queue stands."""

    name: QueueName
    scheduled: int
    """Jobs on the wheel, due ones included."""
    due: int
    """Jobs whose fire time has come and that no worker has claimed."""
    processing: int
    dead: int
    done: int
    """Tombstones of done and cancelled jobs."""
    paused: bool
    oldest_due_ms: int | None
    """Fire time of the oldest due job, ms since the epoch; None when nothing is due."""
    next_fire_ms: int | None
    """Fire time of the first job on the wheel; None when it is empty."""
    workers: int
    """Workers that are alive."""
    cap: int | None
    """The most living jobs the queue takes; None: no limit."""
    precise: bool = False
    """Whether workers take its jobs a few ms ahead and hold them until their very time."""
    trimmed: int = 0
    """Dead jobs that were deleted by the limits on size and age, ever."""
    orphans: int = 0
    """Entries without a record that were cleared away, ever."""
    workers_silent: int = 0
    """Workers that are silent: frozen, cut off or killed."""
    workers_dead: int = 0
    """Workers that are dead and did not sign off; they are listed for an hour."""
    next_job: str = ""
    """Id of the first job on the wheel; '' when it is empty, or the id is no text."""
    shards: int = 1
    """How many shards it has."""
    former: int | None = None
    """While it is cut anew, how many shards it had: jobs of those are on their way to the others."""
    unreadable: str = ""
    """What of it could not be read, and why; '' when all could. A number that could not be read is 0 or None."""
    unanswered: tuple[str, ...] = ()
    """The shards on nodes of a cluster that give no answer: what is in them is not counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DayInfo:
    """One UTC day of a queue's wheel."""

    day: str
    """`yyyymmdd`."""
    jobs: int
    first_ms: int
    """First fire time of the day's jobs, ms since the epoch."""
    last_ms: int
    """Last fire time of the day's jobs, ms since the epoch."""


class WorkerState(StrEnum):
    """Whether a worker beats: it does so every third of its lease."""

    ALIVE = "alive"
    SILENT = "silent"
    """It missed a beat: half a lease went by. Frozen, cut off or killed; its jobs are still its own."""
    DEAD = "dead"
    """A whole lease went by: its jobs come back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """One worker process."""

    id: WorkerId
    host: str
    pid: int
    queues: tuple[QueueName, ...]
    concurrency: int
    """How many jobs it runs at a time."""
    running: int
    """How many it ran at its last beat."""
    started_ms: int
    """When it started, ms since the epoch."""
    beat_ms: int
    """When it last beat, ms since the epoch, by the server's clock."""
    version: str
    """Its version of zwheel."""
    state: WorkerState
    """Whether it beats, by the server's clock when this was read."""
    silent_ms: int
    """How long ago it beat last, ms."""
    tasks: frozenset[str] | None = None
    """The tasks that it knows; None: it does not say."""
    allows: frozenset[str] | None = None
    """Digests of the commands that it may run; None: it does not say."""

    @property
    def alive(self) -> bool:
        """Whether it beats."""
        return self.state is WorkerState.ALIVE


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """Who serves a task in a queue, of the workers of the queue that are not dead."""

    workers: int
    """How many workers the queue has."""
    knowing: int
    """How many of them know the task."""
    silent: int
    """How many of them do not say what they know."""
    paused: bool = False
    """Whether the queue is paused: nobody starts its jobs until it is resumed."""

    @property
    def nobody(self) -> bool:
        """Whether no worker would run it."""
        return not self.knowing and not self.silent
